"""The files of one pod: volumes, service account, a kubeconfig that points at it.

Owner of the pod's directory. A ConfigMap is written once for each container that mounts it,
because its texts are rewritten to where that container's other mounts are.
"""

import base64
import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from epp.testing.api_admin import ApiAdmin, identity
from epp.testing.envtest import HOST, LocalControlPlane
from epp.testing.pod_paths import PodSpecError, Rewriter

SERVICE_ACCOUNT = "/var/run/secrets/kubernetes.io/serviceaccount"


class PodVolumes:
    """Makes directories of what a pod mounts.

    Args:
        control_plane: Knows how the API server is reached.
        admin: Reads ConfigMaps and Secrets, requests tokens.
        pod: As stored.
        directory: Of the pod; made here.
        address: Of the pod.
    """

    def __init__(
        self,
        control_plane: LocalControlPlane,
        admin: ApiAdmin,
        pod: Mapping[str, Any],
        *,
        directory: Path,
        address: str,
    ) -> None:
        self.directory = directory
        self._control_plane = control_plane
        self._admin = admin
        self._pod = pod
        self._address = address
        self._namespace = pod["metadata"]["namespace"]
        self._volumes = {volume["name"]: volume for volume in pod["spec"].get("volumes") or ()}
        self._service_account: Path | None = None

    async def prepare(self) -> dict[str, str]:
        """Get the token of the service account; return what the pod's environment is given.

        Raises:
            StatusError: There is no such service account.
        """
        self.directory.mkdir(parents=True, exist_ok=True)
        given = {
            "KUBERNETES_SERVICE_HOST": HOST,
            "KUBERNETES_SERVICE_PORT": str(self._control_plane.port),
        }
        if await self._wants_token():
            directory = self.directory / "serviceaccount"
            token = await self._admin.service_account_token(
                self._account(), namespace=self._namespace, pod=self._pod
            )
            self._control_plane.in_cluster_files(directory, token, namespace=self._namespace)
            self._service_account = directory
            given["KUBECONFIG"] = str(self._write_kubeconfig(directory))
        return given

    async def mount(self, container: Mapping[str, Any]) -> Rewriter:
        """Make what a container mounts. Raises StatusError or PodSpecError."""
        mounts: dict[str, Path] = {}
        if self._service_account is not None:
            mounts[SERVICE_ACCOUNT] = self._service_account
        files: dict[Path, Mapping[str, bytes]] = {}
        for mount in container.get("volumeMounts") or ():
            if mount.get("subPath"):
                raise PodSpecError(f"volumeMount {mount['mountPath']}: subPath is not supported")
            volume = self._volumes[mount["name"]]
            content = await self._content(volume)
            owner = "shared" if content is None else container["name"]
            place = self.directory / "volumes" / owner / volume["name"]
            place.mkdir(parents=True, exist_ok=True)
            mounts[mount["mountPath"].rstrip("/")] = place
            if content is not None:
                files[place] = content
        rewriter = Rewriter(mounts=mounts, address=self._address)
        for place, content in files.items():
            for name, data in content.items():
                _write(place / name, data, rewriter)
        return rewriter

    async def _content(self, volume: Mapping[str, Any]) -> Mapping[str, bytes] | None:
        """Files of a volume; None for a directory that containers share."""
        if "emptyDir" in volume:
            return None
        if "configMap" in volume:
            found = await self._read("ConfigMap", volume["configMap"]["name"])
            texts = {name: text.encode() for name, text in (found.get("data") or {}).items()}
            return {**texts, **_decoded(found.get("binaryData"))}
        if "secret" in volume:
            return _decoded((await self._read("Secret", volume["secret"]["secretName"]))["data"])
        kinds = ", ".join(sorted(set(volume) - {"name"}))
        raise PodSpecError(f"volume {volume['name']}: {kinds} is not supported")

    async def _read(self, kind: str, name: str) -> dict[str, Any]:
        return await self._admin.get(identity("v1", kind, name, namespace=self._namespace))

    def _account(self) -> str:
        return str(self._pod["spec"].get("serviceAccountName") or "default")

    async def _wants_token(self) -> bool:
        """What the pod says, else what its service account says, else yes."""
        said = self._pod["spec"].get("automountServiceAccountToken")
        if said is None:
            account = await self._read("ServiceAccount", self._account())
            said = account.get("automountServiceAccountToken", True)
        return bool(said)

    def _write_kubeconfig(self, directory: Path) -> Path:
        """The service account at its place, since its own place belongs to the machine."""
        cluster = {
            "server": self._control_plane.url,
            "certificate-authority": str(directory / "ca.crt"),
        }
        context = {"cluster": "cluster", "user": "pod", "namespace": self._namespace}
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "pod",
            "clusters": [{"name": "cluster", "cluster": cluster}],
            "users": [{"name": "pod", "user": {"tokenFile": str(directory / "token")}}],
            "contexts": [{"name": "pod", "context": context}],
        }
        path = self.directory / "kubeconfig.yaml"
        path.write_text(yaml.safe_dump(config), "utf-8")
        return path


def _decoded(data: Mapping[str, str] | None) -> dict[str, bytes]:
    return {name: base64.b64decode(text) for name, text in (data or {}).items()}


def _write(path: Path, data: bytes, rewriter: Rewriter) -> None:
    """Texts are rewritten, other files are not."""
    with contextlib.suppress(UnicodeDecodeError):
        data = rewriter(data.decode()).encode()
    path.write_bytes(data)
