"""What is wrong with a configuration is named with file and field, and without secrets."""

import os
from pathlib import Path
from typing import Any

import pytest

from epp.errors import ConfigError
from epp.kube.config import load_settings
from epp.testing.kubeconfigs import CA, PAIR, POD, SECRET, V1, b64, document, load


def user(**content: Any) -> dict[str, Any]:
    return document(user={name.replace("_", "-"): value for name, value in content.items()})


def cluster(**content: Any) -> dict[str, Any]:
    return document(cluster={name.replace("_", "-"): value for name, value in content.items()})


def plugin(**content: Any) -> dict[str, Any]:
    return document(user={"exec": {"command": "x", "apiVersion": V1, **content}})


C, U = "clusters[name=c].cluster", "users[name=u].user"


@pytest.mark.parametrize(
    ("content", "field", "message"),
    [
        pytest.param("a: [", "", "is not YAML (line 1)", id="not-yaml"),
        pytest.param("- 1", "", "Expected `object`, got `array`", id="not-a-mapping"),
        pytest.param("{}", "current-context", "no context is chosen", id="empty"),
        pytest.param({"clusters": 5}, "clusters", "Expected `array", id="wrong-type"),
        pytest.param(
            cluster(server=5), "clusters[0].cluster.server", "got `int`", id="wrong-field-type"
        ),
        pytest.param(
            {"current-context": "x"},
            "current-context",
            "no such context; there are: none (got 'x')",
            id="no-such-context",
        ),
        pytest.param(
            {**document(), "clusters": []},
            "contexts[name=here].context.cluster",
            "no such cluster",
            id="no-such-cluster",
        ),
        pytest.param(
            {**document(), "users": []},
            "contexts[name=here].context.user",
            "no such user",
            id="no-such-user",
        ),
        pytest.param(
            {**document(), "clusters": [{"name": "c"}]}, C, "is empty", id="empty-cluster"
        ),
        pytest.param(
            {**document(), "contexts": [{"name": "here"}]},
            "contexts[name=here].context",
            "is empty",
            id="empty-context",
        ),
        pytest.param(
            cluster(server=""), f"{C}.server", "must be an http or https URL", id="no-server"
        ),
        pytest.param(
            cluster(server="ftp://x"), f"{C}.server", "must be an http or https URL", id="scheme"
        ),
        pytest.param(cluster(server="https://x:99999"), f"{C}.server", "is not a URL", id="port"),
        pytest.param(
            cluster(server=f"https://u:{SECRET}@x"),
            f"{C}.server",
            "must not contain a user",
            id="password-in-server",
        ),
        pytest.param(
            cluster(certificate_authority="no.crt"),
            f"{C}.certificate-authority",
            "cannot be read: No such file",
            id="no-ca-file",
        ),
        pytest.param(
            cluster(certificate_authority_data="!"),
            f"{C}.certificate-authority-data",
            "is not base64",
            id="ca-base64",
        ),
        pytest.param(
            cluster(certificate_authority_data=b64(b"x")),
            f"{C}.certificate-authority-data",
            "holds no PEM",
            id="ca-pem",
        ),
        pytest.param(
            cluster(proxy_url=f"socks5://u:{SECRET}@x"),
            f"{C}.proxy-url",
            "of scheme socks5 are not supported",
            id="socks",
        ),
        pytest.param(
            cluster(proxy_url="http://"), f"{C}.proxy-url", "is not a URL", id="proxy-without-host"
        ),
        pytest.param(
            user(client_certificate_data=b64(PAIR.certificate)),
            f"{U}.client-key",
            "is missing",
            id="no-key",
        ),
        pytest.param(
            user(client_key_data=b64(PAIR.key)),
            f"{U}.client-certificate",
            "is missing",
            id="no-certificate",
        ),
        pytest.param(
            user(client_certificate_data=b64(CA), client_key_data=b64(PAIR.key)),
            f"{U}.client-certificate",
            "not usable: KEY_VALUES_MISMATCH",
            id="pair-does-not-fit",
        ),
        pytest.param(
            user(tokenFile="none"),
            f"{U}.tokenFile",
            "cannot be read: No such file",
            id="no-token-file",
        ),
        pytest.param(
            user(token=f"{SECRET}\n"), f"{U}.token", "is not a token", id="token-with-newline"
        ),
        pytest.param(
            {**document(), "users": [{"name": "u", "user": {"as": "root"}}]},
            f"{U}.as",
            "impersonation is not supported",
            id="impersonation",
        ),
        pytest.param(
            user(auth_provider={"name": "azure"}),
            f"{U}.auth-provider.name",
            "is not supported, only oidc",
            id="provider",
        ),
        pytest.param(
            user(auth_provider={"name": "gcp"}),
            f"{U}.auth-provider.name",
            "is not supported, only oidc; use a credential plugin (exec) (got 'gcp')",
            id="provider-that-kubectl-gave-up",
        ),
        pytest.param(
            user(auth_provider={"name": "oidc"}),
            f"{U}.auth-provider.config",
            "has no id-token, and refresh-token is missing to ask for one",
            id="provider-without-anything",
        ),
        pytest.param(
            user(
                auth_provider={
                    "name": "oidc",
                    "config": {"refresh-token": SECRET, "client-id": "x", "client-secret": SECRET},
                }
            ),
            f"{U}.auth-provider.config",
            "idp-issuer-url is missing",
            id="provider-without-issuer",
        ),
        pytest.param(
            user(auth_provider={"name": "oidc", "config": {"id-token": SECRET}}),
            f"{U}.auth-provider.config",
            "its id-token is not a JSON Web Token",
            id="provider-with-another-token",
        ),
        pytest.param(
            plugin(apiVersion="v0"), f"{U}.exec.apiVersion", "must be one of", id="plugin-version"
        ),
        pytest.param(plugin(command=""), f"{U}.exec.command", "is missing", id="plugin-command"),
    ],
)
def test_what_is_wrong_is_named_with_file_and_field(
    tmp_path: Path, content: Any, field: str, message: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, content)

    assert caught.value.source == str(tmp_path / "config")
    assert caught.value.field == field
    assert message in str(caught.value)
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize(
    ("flag", "env", "source"),
    [
        pytest.param("gone", {}, "--kubeconfig", id="flag"),
        pytest.param(None, {"KUBECONFIG": "/gone:/gone2"}, "$KUBECONFIG", id="variable"),
        pytest.param(None, {"HOME": "/gone"}, "", id="nothing-at-all"),
    ],
)
def test_a_missing_configuration_names_where_it_was_looked_for(
    tmp_path: Path, flag: str | None, env: dict[str, str], source: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        load_settings(Path(flag) if flag else None, "", env, service_account=tmp_path / "sa")

    assert caught.value.source == source


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        pytest.param("gone", "no such file", id="missing"),
        pytest.param("folder", "is a directory, not a file", id="directory"),
        pytest.param("pipe", "is not a regular file", id="pipe"),
    ],
)
@pytest.mark.parametrize("listed", [False, True], ids=["flag", "variable"])
def test_what_is_no_kubeconfig_file_is_told_what_it_is(
    tmp_path: Path, name: str, problem: str, listed: bool
) -> None:
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    path = tmp_path / name
    env = {"KUBECONFIG": str(path)} if listed else {}

    with pytest.raises(ConfigError) as caught:
        load_settings(None if listed else path, "", env, service_account=tmp_path / "sa")

    source = "$KUBECONFIG" if listed else "--kubeconfig"
    assert str(caught.value) == f"{source}: {problem} (got {str(path)!r})"


def test_a_wrong_service_port_is_named(service_account: Path) -> None:
    env = {**POD, "KUBERNETES_SERVICE_PORT": "tcp://x"}

    with pytest.raises(ConfigError, match=r"\$KUBERNETES_SERVICE_PORT: is not a port number"):
        load_settings(None, "", env, service_account=service_account)


def test_a_proxy_of_the_environment_is_checked_without_showing_it(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"\$HTTPS_PROXY: proxies of scheme socks5") as caught:
        load(tmp_path, document(), {"HTTPS_PROXY": f"socks5://u:{SECRET}@p:1"})

    assert SECRET not in str(caught.value)


def test_an_unreadable_or_huge_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is longer than"):
        load(tmp_path, "#" * (5 * 1024 * 1024))
