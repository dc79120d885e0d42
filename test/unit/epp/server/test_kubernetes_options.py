"""Kubernetes as the source, certificates, and who may read the metrics port."""

from pathlib import Path
from typing import Any

import pytest

from epp.errors import ConfigError
from epp.server.options import Options, parse

POOL = ["--pool-name", "p"]
PODS = ["--endpoint-selector", "app=vllm", "--endpoint-target-ports", "8000"]
POD_NAME = "my-epp-6b7f9c5d4-x2x9z"
AES128 = "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256"


def kubernetes(*argv: str, service_account: Path = Path("/nowhere"), **env: str) -> Options:
    return parse([*POOL, *argv], env, service_account=service_account)


@pytest.mark.parametrize(
    "argv, kind",
    [
        pytest.param(POOL, "kubernetes", id="pool-name"),
        pytest.param([*POOL, "--manifests=d"], "files", id="manifests"),
        pytest.param([*POOL, "--endpoint=10.0.0.1:80"], "endpoints", id="endpoints"),
    ],
)
def test_kubernetes_is_the_source_when_no_other_is_named(argv: list[str], kind: str) -> None:
    assert parse(argv, {}).source_kind == kind


@pytest.mark.parametrize(
    "argv, field, want",
    [
        pytest.param(["--kubeconfig=k"], "kubeconfig", Path("k"), id="kubeconfig"),
        pytest.param(["--kube-context=c"], "kube_context", "c", id="context"),
        pytest.param([], "pool_group", "", id="any-group"),
        pytest.param(
            ["--pool-group=inference.networking.k8s.io"], "pool_group",
            "inference.networking.k8s.io", id="v1",
        ),
        pytest.param(
            ["--poolGroup=inference.networking.x-k8s.io"], "pool_group",
            "inference.networking.x-k8s.io", id="v1alpha2",
        ),
        pytest.param([], "leader_election", False, id="no-election"),
        pytest.param(["--ha-enable-leader-election"], "leader_election", True, id="election"),
        pytest.param([], "metrics_endpoint_auth", True, id="auth"),
        pytest.param(["--metrics-endpoint-auth=false"], "metrics_endpoint_auth", False, id="open"),
    ],
)  # fmt: skip
def test_a_flag_sets_its_option(argv: list[str], field: str, want: Any) -> None:
    assert getattr(kubernetes(*argv), field) == want


@pytest.mark.parametrize(
    "argv, env, own, want",
    [
        pytest.param(["--pool-namespace=a"], {"NAMESPACE": "b"}, "c", "a", id="flag"),
        pytest.param([], {"NAMESPACE": "b", "KUBERNETES_SERVICE_HOST": "x"}, "c", "b", id="env"),
        pytest.param([], {"KUBERNETES_SERVICE_HOST": "x"}, "c\n", "c", id="own-pod"),
        pytest.param([], {"KUBERNETES_SERVICE_HOST": "x"}, None, "default", id="no-file"),
        pytest.param([], {"KUBERNETES_SERVICE_HOST": "x"}, "\n", "default", id="empty-file"),
        pytest.param([], {}, "c", "default", id="not-in-a-pod"),
        pytest.param(
            ["--kubeconfig=k"], {"KUBERNETES_SERVICE_HOST": "x"}, "c", "default", id="kubeconfig"
        ),
        pytest.param(
            [], {"KUBERNETES_SERVICE_HOST": "x", "KUBECONFIG": "k"}, "c", "default",
            id="kubeconfig-variable",
        ),
    ],
)  # fmt: skip
def test_the_pools_namespace_falls_back(
    tmp_path: Path, argv: list[str], env: dict[str, str], own: str | None, want: str
) -> None:
    if own is not None:
        (tmp_path / "namespace").write_text(own)

    assert kubernetes(*argv, service_account=tmp_path, **env).pool_namespace == want


@pytest.mark.parametrize("source", [[], ["--manifests=d"], ["--endpoint=10.0.0.1:80"]])
@pytest.mark.parametrize(
    "argv, env, source_and_value",
    [
        pytest.param(["--pool-name=Sim_Pool"], {}, ("--pool-name", "Sim_Pool"), id="capitals"),
        pytest.param(["--poolName", "a/b"], {}, ("--pool-name", "a/b"), id="slash"),
        pytest.param(["--pool-name", "a=b,c"], {}, ("--pool-name", "a=b,c"), id="selector"),
        pytest.param(
            ["--pool-namespace", "../.."], {}, ("--pool-namespace", "../.."), id="namespace-path"
        ),
        pytest.param(["--pool-namespace=a.b"], {}, ("--pool-namespace", "a.b"), id="dotted"),
        pytest.param([], {"NAMESPACE": "Bad NS"}, ("NAMESPACE", "Bad NS"), id="variable"),
    ],
)
def test_what_can_name_no_pool_is_refused_whatever_the_source(
    source: list[str], argv: list[str], env: dict[str, str], source_and_value: tuple[str, str]
) -> None:
    with pytest.raises(ConfigError) as caught:
        parse([*POOL, *source, *argv], env)

    assert (caught.value.source, caught.value.value) == source_and_value


def test_a_bad_variable_does_not_matter_beside_the_flag() -> None:
    assert kubernetes("--pool-namespace=a", NAMESPACE="Bad NS").pool_namespace == "a"


def test_pods_without_a_pool_are_named_after_our_deployment() -> None:
    options = parse(
        ["--endpoint-selector", "app=vllm,tier in (a, b)", "--endpoint-target-ports=8001,8000"],
        {"POD_NAME": POD_NAME},
    )

    assert (options.pool_name, options.pod_name) == ("my-epp", POD_NAME)
    assert str(options.endpoint_selector) == "app=vllm,tier in (a,b)"
    assert options.endpoint_target_ports == (8001, 8000)


def test_target_ports_are_collected_and_repeats_dropped() -> None:
    more = ["--endpoint-target-ports=8000,8001", "--endpointTargetPorts=8001"]

    options = parse([*PODS, *more], {"POD_NAME": POD_NAME})

    assert options.endpoint_target_ports == (8000, 8001)


@pytest.mark.parametrize(
    "pod_name, message",
    [
        pytest.param("", "POD_NAME: is required with --endpoint-selector", id="missing"),
        pytest.param("alone", "POD_NAME: is not the name of a Deployment's pod", id="bare-pod"),
        pytest.param("set-0", "POD_NAME: is not the name of a Deployment's pod", id="stateful-set"),
        pytest.param("Epp-A-B", "POD_NAME: is not the name of a Deployment's pod", id="capitals"),
        pytest.param("a/b-c-d", r"POD_NAME: is not .*'a/b-c-d'", id="not-a-name"),
        pytest.param("-x-c-d", r"POD_NAME: is not .*'-x-c-d'", id="dash-first"),
    ],
)
def test_pods_without_a_pool_need_the_name_of_our_pod(pod_name: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse(PODS, {"POD_NAME": pod_name})


@pytest.mark.parametrize(
    "argv, message",
    [
        pytest.param([], "either pool-name or endpoint-selector must be set.*--manifests", id="none"),
        pytest.param(
            [*POOL, *PODS], "either pool-name or endpoint-selector must be set, not both", id="both"
        ),
        pytest.param(
            ["--endpoint-selector=a=b"], "--endpoint-target-ports: must be 1 to 8 ports", id="no-ports"
        ),
        pytest.param(
            [*PODS, "--endpoint-target-ports=1,2,3,4,5,6,7,8"], r"1 to 8 ports.*got '8000,1,2",
            id="nine-ports",
        ),
        pytest.param(
            [*PODS, "--endpoint-target-ports=0"], r"--endpoint-target-ports: holds a number.*got '0'",
            id="port-zero",
        ),
        pytest.param(
            [*PODS, "--endpoint-target-ports=65536"], "--endpoint-target-ports: .*got '65536'",
            id="port-too-large",
        ),
        pytest.param(
            [*PODS, "--endpoint-target-ports=http"], "--endpoint-target-ports: .*got 'http'",
            id="port-name",
        ),
        pytest.param(
            ["--endpoint-selector=app==b,c in d"],
            "--endpoint-selector: is not a label selector: cannot read the term 'c in d'",
            id="selector",
        ),
        pytest.param(
            [*POOL, "--endpoint-target-ports=80"],
            "--endpoint-target-ports: only with --endpoint-selector", id="ports-of-a-pool",
        ),
        pytest.param([*POOL, "--pool-group=apps"], "--pool-group: must be one of .*'apps'", id="group"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_from_kubernetes_is_refused(argv: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse(argv, {"POD_NAME": POD_NAME})


@pytest.fixture
def certificates(tmp_path: Path) -> Path:
    for name in ("tls.crt", "tls.key", "ca.crt"):
        (tmp_path / name).write_text("pem")
    return tmp_path


@pytest.mark.parametrize(
    "argv",
    [
        pytest.param(["--metrics-cert-dir={}"], id="tokens"),
        pytest.param(
            ["--metrics-cert-dir={}", "--metrics-client-ca-file={}/ca.crt"], id="tokens-and-clients"
        ),
        pytest.param(
            [
                "--metrics-cert-dir={}",
                "--metrics-client-ca-file={}/ca.crt",
                "--metrics-endpoint-auth=false",
            ],
            id="clients-only",
        ),
    ],
)
def test_metrics_tls_with_some_authentication_is_accepted(
    certificates: Path, argv: list[str]
) -> None:
    options = kubernetes(*(argument.format(certificates) for argument in argv))

    assert options.metrics_cert_dir == certificates


@pytest.mark.parametrize(
    "argv, message",
    [
        pytest.param(
            ["--metrics-cert-dir={}", "--metrics-endpoint-auth=false"],
            "--metrics-cert-dir: enables metrics TLS without authentication; "
            "set --metrics-client-ca-file or --metrics-endpoint-auth",
            id="tls-without-authentication",
        ),
        pytest.param(
            ["--metrics-client-ca-file={}/ca.crt"],
            "--metrics-client-ca-file: requires --metrics-cert-dir",
            id="clients-without-tls",
        ),
        pytest.param(
            ["--metrics-cert-dir={}/nowhere"],
            "--metrics-cert-dir: cannot be read: No such file.*nowhere/tls.crt",
            id="no-certificate",
        ),
        pytest.param(
            ["--metrics-cert-dir={}", "--metrics-client-ca-file={}/nowhere"],
            "--metrics-client-ca-file: cannot be read: No such file",
            id="no-ca",
        ),
    ],
)
def test_metrics_access_that_does_not_fit_together_is_refused(
    certificates: Path, argv: list[str], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        kubernetes(*(argument.format(certificates) for argument in argv))


def test_without_kubernetes_metrics_tls_needs_a_client_ca(certificates: Path) -> None:
    argv = ["--endpoint=10.0.0.1:80", f"--metrics-cert-dir={certificates}"]

    with pytest.raises(ConfigError, match="set --metrics-client-ca-file \\(got"):
        parse(argv, {})
    options = parse([*argv, f"--metrics-client-ca-file={certificates / 'ca.crt'}"], {})

    assert options.metrics_client_ca_file == certificates / "ca.crt"


@pytest.mark.parametrize(
    "argument, event",
    [
        pytest.param(
            "--metrics-endpoint-auth",
            "no Kubernetes to ask, the metrics port takes no tokens",
            id="tokens-without-kubernetes",
        ),
        pytest.param(
            "--enable-cert-reload",
            "flag has no effect",
            id="reload-without-files",
        ),
        pytest.param(
            f"--tls-cipher-suites={AES128},TLS_AES_128_GCM_SHA256",
            "cipher suites of TLS 1.3 cannot be chosen, all are offered",
            id="tls-1.3-suite",
        ),
    ],
)
def test_a_flag_without_effect_leaves_a_notice(argument: str, event: str) -> None:
    options = parse(["--endpoint=10.0.0.1:80", argument], {})

    assert [notice.event for notice in options.notices] == [event]


def test_cipher_suites_are_collected_under_their_names_in_go() -> None:
    other = "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384"

    options = kubernetes(f"--tls-cipher-suites={AES128}, {other}", f"--tlsCipherSuites={AES128}")

    assert options.tls_cipher_suites.names == (AES128, other)


def test_an_unknown_cipher_suite_is_named() -> None:
    with pytest.raises(ConfigError, match="--tls-cipher-suites: has no cipher .* named AES128-SHA"):
        kubernetes(f"--tls-cipher-suites={AES128},AES128-SHA")
