"""Where the API server is, from which source."""

from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from epp.kube.config import load_settings
from epp.kube.connection_settings import (
    Anonymous,
    AuthProvider,
    ExecPlugin,
    StaticAuthorization,
    TokenFile,
)
from epp.testing.kubeconfigs import CA, PAIR, POD, SECRET, V1, b64, document, load, write

OIDC = {
    "refresh-token": SECRET,
    "client-id": "epp",
    "client-secret": SECRET,
    "idp-issuer-url": "https://issuer",
}


def test_a_pod_uses_its_service_account(service_account: Path) -> None:
    settings = load_settings(None, "", POD, service_account=service_account)

    assert settings.server == "https://10.96.0.1:443"
    assert settings.namespace == "demo"
    assert settings.ca_data == CA.decode()
    assert settings.identity == TokenFile(path=service_account / "token")
    assert settings.origin == f"service account in {service_account}"


def test_an_ipv6_service_address_is_bracketed(service_account: Path) -> None:
    env = {"KUBERNETES_SERVICE_HOST": "fd00::1"}

    assert (
        load_settings(None, "", env, service_account=service_account).server
        == "https://[fd00::1]:443"
    )


def test_a_pod_without_ca_or_namespace_trusts_the_system(service_account: Path) -> None:
    (service_account / "ca.crt").unlink()
    (service_account / "namespace").unlink()

    with capture_logs() as logs:
        settings = load_settings(None, "", POD, service_account=service_account)

    assert (settings.ca_data, settings.namespace) == ("", "default")
    assert [one["event"] for one in logs] == ["no CA file in the pod, the system's are used"]


@pytest.mark.parametrize(
    ("flag", "listed", "in_pod", "at_home", "want"),
    [
        pytest.param(True, True, True, True, "https://flag", id="flag-first"),
        pytest.param(False, True, True, True, "https://listed", id="then-the-variable"),
        pytest.param(False, False, True, True, "https://10.96.0.1:443", id="then-the-pod"),
        pytest.param(False, False, False, True, "https://home", id="then-the-home-directory"),
    ],
)
def test_sources_have_an_order(
    tmp_path: Path,
    service_account: Path,
    flag: bool,
    listed: bool,
    in_pod: bool,
    at_home: bool,
    want: str,
) -> None:
    (tmp_path / ".kube").mkdir()
    write(tmp_path / ".kube", document(cluster={"server": "https://home"}))
    flagged = write(tmp_path, document(cluster={"server": "https://flag"}), "flag")
    named = write(tmp_path, document(cluster={"server": "https://listed"}), "listed")
    env = {"HOME": str(tmp_path)} if at_home else {}
    env |= POD if in_pod else {}
    env |= {"KUBECONFIG": f"{tmp_path / 'missing'}:{named}"} if listed else {}

    settings = load_settings(flagged if flag else None, "", env, service_account=service_account)

    assert settings.server == want


def test_a_context_is_looked_for_at_home_even_in_a_pod(
    tmp_path: Path, service_account: Path
) -> None:
    (tmp_path / ".kube").mkdir()
    write(tmp_path / ".kube", document(namespace="team"))

    settings = load_settings(
        None, "here", {**POD, "HOME": str(tmp_path)}, service_account=service_account
    )

    assert (settings.server, settings.namespace) == ("https://api:6443", "team")


def test_files_are_merged_and_the_first_wins(tmp_path: Path) -> None:
    first = {"clusters": [{"name": "c", "cluster": {"server": "https://first"}}]}
    second = {**document(user={"token": SECRET}), "current-context": "here"}
    files = f"{write(tmp_path, first, 'a')}:{write(tmp_path, second, 'b')}"

    settings = load_settings(None, "", {"KUBECONFIG": files}, service_account=tmp_path / "sa")

    assert settings.server == "https://first"
    assert settings.identity == StaticAuthorization(header=f"Bearer {SECRET}")


def test_relative_paths_start_at_the_file_that_has_them(tmp_path: Path) -> None:
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
    (tmp_path / "one" / "ca.crt").write_bytes(CA)
    (tmp_path / "two" / "tls.crt").write_bytes(PAIR.certificate)
    (tmp_path / "two" / "tls.key").write_bytes(PAIR.key)
    whole = document(
        cluster={"certificate-authority": "ca.crt"},
        user={"client-certificate": "tls.crt", "client-key": "tls.key"},
    )
    one = write(tmp_path / "one", {**whole, "users": []})
    two = write(tmp_path / "two", {"users": whole["users"]})

    settings = load_settings(None, "", {"KUBECONFIG": f"{one}:{two}"}, service_account=tmp_path)

    assert settings.ca_data == CA.decode()
    assert settings.client_certificate == PAIR


def test_everything_a_cluster_can_say_is_taken(tmp_path: Path) -> None:
    cluster = {
        "server": "https://api:6443/path/",
        "certificate-authority-data": b64(CA),
        "tls-server-name": "kubernetes",
        "insecure-skip-tls-verify": True,
        "proxy-url": "http://user:pass@proxy:3128",
    }

    settings = load(tmp_path, document(cluster=cluster), {"HTTPS_PROXY": "http://other:1"})

    assert settings.server == "https://api:6443/path"
    assert settings.tls_server_name == "kubernetes"
    assert settings.insecure_skip_tls_verify
    assert settings.proxy == "http://user:pass@proxy:3128"
    assert settings.namespace == "default"


def test_the_environment_names_a_proxy(tmp_path: Path) -> None:
    assert load(tmp_path, document(), {"HTTPS_PROXY": "http://p:1"}).proxy == "http://p:1"


@pytest.mark.parametrize(
    ("user", "want"),
    [
        pytest.param({}, Anonymous(), id="nobody"),
        pytest.param({"token": SECRET}, StaticAuthorization(header=f"Bearer {SECRET}"), id="token"),
        pytest.param(
            {"username": "u", "password": "p"},
            StaticAuthorization(header="Basic dTpw"),
            id="password",
        ),
        pytest.param(
            {"auth-provider": {"name": "oidc", "config": {"id-token": "x.y.z"}}},
            AuthProvider(name="oidc", config={"id-token": "x.y.z"}),
            id="provider",
        ),
        pytest.param(
            {"auth-provider": {"name": "oidc", "config": OIDC}},
            AuthProvider(name="oidc", config=OIDC),
            id="provider-that-has-to-ask",
        ),
    ],
)
def test_identities(tmp_path: Path, user: dict[str, Any], want: object) -> None:
    assert load(tmp_path, document(user=user)).identity == want


def test_a_token_file_beats_a_token(tmp_path: Path) -> None:
    (tmp_path / "token").write_text(SECRET)

    settings = load(tmp_path, document(user={"token": "old", "tokenFile": "token"}))

    assert settings.identity == TokenFile(path=tmp_path / "token")


def test_a_plugin_inherits_the_environment_and_may_be_told_of_the_cluster(tmp_path: Path) -> None:
    plugin = {
        "apiVersion": V1,
        "command": "./bin/login",
        "args": ["get", "token"],
        "env": [{"name": "A", "value": "2"}],
        "provideClusterInfo": True,
        "installHint": "install it",
    }
    cluster = {"certificate-authority-data": b64(CA), "tls-server-name": "kubernetes"}

    settings = load(
        tmp_path, document(cluster=cluster, user={"exec": plugin}), {"A": "1", "B": "1"}
    )

    assert settings.identity == ExecPlugin(
        command=str(tmp_path / "bin" / "login"),
        args=("get", "token"),
        env={"A": "2", "B": "1"},
        api_version=V1,
        cluster={
            "server": "https://api:6443",
            "certificate-authority-data": b64(CA),
            "tls-server-name": "kubernetes",
        },
        install_hint="install it",
    )


def test_a_settings_object_shows_no_secret(tmp_path: Path) -> None:
    (tmp_path / "tls.key").write_bytes(PAIR.key)
    settings = load(
        tmp_path,
        document(
            cluster={"proxy-url": f"http://u:{SECRET}@proxy:1"},
            user={
                "token": SECRET,
                "client-certificate-data": b64(PAIR.certificate),
                "client-key": "tls.key",
            },
        ),
    )

    assert SECRET not in repr(settings)
    assert "PRIVATE" not in repr(settings)
