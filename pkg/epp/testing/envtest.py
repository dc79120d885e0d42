"""A real control plane on loopback for tests: etcd and kube-apiserver, nothing else.

There is no controller manager, scheduler or kubelet: pods stay as they were written, a deleted
namespace stays ``Terminating``, no ServiceAccount comes by itself. RBAC is on. The admission
plugin ServiceAccount is off, so that a pod needs no ServiceAccount; tokens of ServiceAccounts are
real (``ApiAdmin.service_account_token``).

The processes belong to no event loop and log to files: a control plane that was started in one loop
serves tests in others. On Linux the kernel kills them with the thread that started them, however
that ends.
"""

import asyncio
import base64
import contextlib
import json
import os
import secrets
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import yaml
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from epp.testing.api_admin import ApiAdmin
from epp.testing.api_connection import StatusError
from epp.testing.bound_program import bound

ADMIN = "admin"
"""The user that may do everything."""

HOST = "127.0.0.1"
ISSUER = "https://kubernetes.default.svc.cluster.local"
READY_SECONDS = 60.0
STOP_SECONDS = 10.0
_START_ATTEMPTS = 3
_PORTS = range(20_000, 30_000)
"""Below the range that the kernel takes source ports from, so that a restart finds its port free."""

_LOG_TAIL_BYTES = 4000


class ControlPlaneError(Exception):
    """The binaries cannot be had, or a process did not come up; the text has its last lines."""


def find_assets(script: Path) -> Path:
    """Directory of kube-apiserver and etcd, from ``hack/envtest.py``, which may build them.

    What it does is shown on standard error while it does it.

    Raises:
        ControlPlaneError: It could not provide them; the text says which command to run.
    """
    done = subprocess.run(  # noqa: S603 (our own script)
        [sys.executable, str(script)], stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, check=False
    )
    if done.returncode != 0:
        raise ControlPlaneError(
            "these tests need kube-apiserver and etcd, which cannot be had (see above); "
            "run `make envtest` to see why, or set KUBEBUILDER_ASSETS or ENVTEST_ARCHIVE"
        )
    return Path(done.stdout.decode().strip())


class LocalControlPlane:
    """etcd and kube-apiserver of one test run.

    Args:
        assets: Directory with both binaries.
        directory: Empty directory for data, keys and logs; not reused.
        users: Users besides ``admin`` and their groups; RBAC grants them nothing yet.
        api_server_flags: More flags of kube-apiserver; they win over ours.
    """

    def __init__(
        self,
        assets: Path,
        directory: Path,
        *,
        users: Mapping[str, Sequence[str]] | None = None,
        api_server_flags: Sequence[str] = (),
    ) -> None:
        self.directory = directory
        self.port = 0
        self._assets = assets
        self._users = {**(users or {}), ADMIN: ("system:masters",)}
        self._tokens = {user: secrets.token_hex(16) for user in self._users}
        self._more_flags = list(api_server_flags)
        self._etcd_port = 0
        self._etcd: subprocess.Popen[bytes] | None = None
        self._api_server: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Base URL of the API server; the same after a restart."""
        return f"https://{HOST}:{self.port}"

    @property
    def ca_file(self) -> Path:
        """Certificate of the API server, which is its own authority; the same after a restart."""
        return self.directory / "certificates" / "apiserver.crt"

    @property
    def key_file(self) -> Path:
        """Key of that certificate, for proxies in front."""
        return self.directory / "certificates" / "apiserver.key"

    @property
    def process_ids(self) -> Mapping[str, int]:
        """Process ids by program, of those that run."""
        processes = {"etcd": self._etcd, "kube-apiserver": self._api_server}
        return {name: p.pid for name, p in processes.items() if p is not None and p.poll() is None}

    async def __aenter__(self) -> Self:
        """Start both and wait until ready. Raises ControlPlaneError."""
        self._prepare()
        try:
            await self._start()
        except BaseException:
            await self._stop_all()
            raise
        return self

    async def __aexit__(
        self,
        _kind: type[BaseException] | None,
        exc: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        """Stop both."""
        await self._stop_all()
        if exc is not None:
            exc.add_note(self.log_tail("kube-apiserver"))

    def token(self, user: str = ADMIN) -> str:
        """Token of a user."""
        return self._tokens[user]

    def admin(self, token: str | None = None) -> ApiAdmin:
        """A connection to open with ``async with``: the administrator's, or of any token."""
        return ApiAdmin(self.url, self.token() if token is None else token, str(self.ca_file))

    def kubeconfig(
        self, token: str | None = None, *, server: str = "", namespace: str = "default"
    ) -> Path:
        """Write a kubeconfig for a token (the administrator's without one).

        Args:
            token: Of a user or a ServiceAccount.
            server: URL of a proxy in front; empty is the API server itself.
            namespace: Of its context.
        """
        context = {"cluster": "local", "user": "user", "namespace": namespace}
        cluster = {"server": server or self.url, "certificate-authority": str(self.ca_file)}
        user = {"token": self.token() if token is None else token}
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "local",
            "clusters": [{"name": "local", "cluster": cluster}],
            "users": [{"name": "user", "user": user}],
            "contexts": [{"name": "local", "context": context}],
        }
        path = self.directory / f"kubeconfig-{secrets.token_hex(4)}.yaml"
        _write_secret(path, yaml.safe_dump(config))
        return path

    def in_cluster_files(self, directory: Path, token: str, *, namespace: str) -> Path:
        """Write ``token``, ``ca.crt`` and ``namespace`` as a kubelet mounts them for a pod."""
        directory.mkdir(parents=True, exist_ok=True)
        _write_secret(directory / "token", token)
        (directory / "ca.crt").write_bytes(self.ca_file.read_bytes())
        (directory / "namespace").write_text(namespace, "utf-8")
        return directory

    async def kill_apiserver(self) -> None:
        """Kill the API server as a crash would; etcd stays."""
        if self._api_server is not None:
            self._api_server.kill()
            await _ended(self._api_server, STOP_SECONDS)

    async def stop_apiserver(self) -> None:
        """Ask the API server to end, as a rolling update does, and wait."""
        if self._api_server is not None:
            await _stop(self._api_server)

    async def restart_apiserver(self) -> None:
        """Start it again on the same port and the same etcd; stop it first if it still runs."""
        await self.stop_apiserver()
        self._api_server = self._spawn_api_server()
        await self._api_server_ready()

    def log_tail(self, program: str) -> str:
        """The end of what a program has logged."""
        log = self.directory / f"{program}.log"
        if not log.is_file():
            return f"{program}: no log"
        text = log.read_bytes()[-_LOG_TAIL_BYTES:].decode(errors="replace")
        return f"{program} said last:\n{text}"

    def _prepare(self) -> None:
        self.directory.mkdir(parents=True, exist_ok=True)
        rows = [
            f'{self._tokens[user]},{user},{user},"{",".join(groups)}"\n'
            for user, groups in self._users.items()
        ]
        _write_secret(self.directory / "tokens.csv", "".join(rows))
        key = ec.generate_private_key(ec.SECP256R1())
        pem = key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.TraditionalOpenSSL,
            serialization.NoEncryption(),
        )
        _write_secret(self.directory / "service-accounts.key", pem.decode())

    async def _start(self) -> None:
        """Start both; where another process was faster with a port, with other ports."""
        for attempt in range(1, _START_ATTEMPTS + 1):
            self._etcd_port, self.port = _free_port(), _free_port()
            try:
                self._etcd = self._spawn_etcd()
                self._api_server = self._spawn_api_server()
                await self._api_server_ready()
            except ControlPlaneError as exc:
                await self._stop_all()
                if "address already in use" not in str(exc) or attempt == _START_ATTEMPTS:
                    raise
            else:
                return

    def _spawn_etcd(self) -> subprocess.Popen[bytes]:
        url = f"http://{HOST}:{self._etcd_port}"
        return self._spawn(
            "etcd",
            f"--data-dir={self.directory / 'etcd'}",
            f"--listen-client-urls={url}",
            f"--advertise-client-urls={url}",
            "--listen-peer-urls=http://127.0.0.1:0",
            "--unsafe-no-fsync",
            "--log-level=warn",
        )

    def _spawn_api_server(self) -> subprocess.Popen[bytes]:
        keys = self.directory / "service-accounts.key"
        return self._spawn(
            "kube-apiserver",
            f"--etcd-servers=http://{HOST}:{self._etcd_port}",
            f"--bind-address={HOST}",
            f"--advertise-address={HOST}",
            f"--secure-port={self.port}",
            f"--cert-dir={self.directory / 'certificates'}",
            f"--token-auth-file={self.directory / 'tokens.csv'}",
            f"--service-account-issuer={ISSUER}",
            f"--service-account-key-file={keys}",
            f"--service-account-signing-key-file={keys}",
            "--authorization-mode=RBAC",
            "--disable-admission-plugins=ServiceAccount",
            "--endpoint-reconciler-type=none",
            "--service-cluster-ip-range=10.0.0.0/24",
            *self._more_flags,
        )

    def _spawn(self, program: str, *arguments: str) -> subprocess.Popen[bytes]:
        with (self.directory / f"{program}.log").open("ab") as log:
            return subprocess.Popen(  # noqa: S603 (binaries of the assets directory)
                bound([str(self._assets / program), *arguments]),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.directory,
                start_new_session=True,  # a terminal's Ctrl-C must not end it before its tests
            )

    async def _api_server_ready(self) -> None:
        deadline = time.monotonic() + READY_SECONDS
        while not await self._is_ready():
            for program in ("etcd", "kube-apiserver"):
                if program not in self.process_ids:
                    raise ControlPlaneError(f"{program} ended\n{self.log_tail(program)}")
            if time.monotonic() > deadline:
                tail = self.log_tail("kube-apiserver")
                raise ControlPlaneError(f"not ready within {READY_SECONDS:g} s\n{tail}")
            await asyncio.sleep(0.05)

    async def _is_ready(self) -> bool:
        if not self.ca_file.is_file():
            return False
        with contextlib.suppress(StatusError, OSError, TimeoutError):
            async with self.admin() as admin:
                return bool(await admin.request("GET", "/readyz", timeout_seconds=5) == "ok")
        return False

    async def _stop_all(self) -> None:
        for process in (self._api_server, self._etcd):
            if process is not None:
                await _stop(process)
        self._api_server = self._etcd = None


def token_claims(token: str) -> dict[str, object]:
    """Claims of a ServiceAccount token, not verified."""
    payload = token.split(".")[1]
    decoded = base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4))
    return dict(json.loads(decoded))


async def _stop(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.terminate()
        if not await _ended(process, STOP_SECONDS):
            process.kill()
            await _ended(process, STOP_SECONDS)


async def _ended(process: subprocess.Popen[bytes], seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while process.poll() is None:
        if time.monotonic() > deadline:
            return False
        await asyncio.sleep(0.01)
    return True


def _free_port() -> int:
    while True:
        port = secrets.choice(_PORTS)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((HOST, port))
            return port


def _write_secret(path: Path, text: str) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as sink:
        sink.write(text)
