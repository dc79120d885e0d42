"""Flags for serve, as the programs around the EPP understand them."""

import pytest

from epp.errors import ConfigError
from epp.standalone.options import StandaloneOptions
from epp.standalone.serve_flags import ServeFlags, default_arguments, read_serve_flags

MIB = 1 << 20


def read(*arguments: str, **env: str) -> ServeFlags:
    options = StandaloneOptions(endpoints=("10.0.0.1:8000",), serve_args=arguments)
    return read_serve_flags(options, env)


def test_by_default_the_epp_listens_on_loopback_in_plain_text():
    flags = read()

    assert flags == ServeFlags()
    assert flags.contact_address == "127.0.0.1"


@pytest.mark.parametrize(
    ("arguments", "want"),
    [
        pytest.param(["--secure-serving"], {"secure": True}, id="tls"),
        pytest.param(["-secureServing=true"], {"secure": True}, id="tls-in-the-spelling-of-v0"),
        pytest.param(["--cert-path", "/certs"], {"secure": False}, id="certificate-alone"),
        pytest.param(["--bind-address", "::1"], {"bind_address": "::1"}, id="address"),
        pytest.param(["--bind-address="], {"bind_address": ""}, id="every-address"),
        pytest.param(["--grpc-port", "0"], {"grpc_port": 0}, id="any-port"),
        pytest.param(["-metricsPort=9"], {"metrics_port": 9}, id="named-port"),
        pytest.param(["--drain-timeout=3s"], {"drain_seconds": 3.0}, id="drain"),
        pytest.param(["--log-format=json"], {"json_log": True}, id="json-log"),
        pytest.param(["-v=3"], {"verbose": True}, id="verbose"),
    ],
)
def test_what_the_user_says_is_known(arguments, want):
    flags = read(*arguments)

    assert {name: getattr(flags, name) for name in want} == want


@pytest.mark.parametrize(
    ("bind", "contact"),
    [
        pytest.param("", "127.0.0.1", id="every-address"),
        pytest.param("0.0.0.0", "127.0.0.1", id="every-ipv4-address"),
        pytest.param("::", "::1", id="every-ipv6-address"),
        pytest.param("10.1.2.3", "10.1.2.3", id="one-address"),
    ],
)
def test_the_epp_is_called_where_it_listens(bind, contact):
    assert ServeFlags(bind_address=bind).contact_address == contact


@pytest.mark.parametrize(
    ("arguments", "mib"),
    [
        pytest.param([], 32, id="default"),
        pytest.param(["--max-request-body=40MiB"], 40, id="large-bodies"),
        pytest.param(["--grpc-max-recv-msg-size=20MiB"], 19, id="small-messages"),
        pytest.param(["--grpc-max-recv-msg-size=9GiB"], 4096 - 1 / MIB, id="beyond-32-bits"),
    ],
)
def test_envoy_buffers_what_the_epp_can_receive_and_no_more(arguments, mib):
    assert read(*arguments).buffer_limit_bytes == mib * MIB


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        pytest.param(["--eds-file", "x"], r"--eds-file: .*\(got 'x'\)", id="eds-file"),
        pytest.param(["-edsFile=x"], "--eds-file", id="eds-file-in-the-spelling-of-v0"),
        pytest.param(["--metrics-cert-dir", "d"], "--metrics-cert-dir", id="metrics-tls"),
        pytest.param(
            ["--secure-serving", "--grpc-client-ca-file", "ca.pem"],
            "--grpc-client-ca-file: the Envoy .* no client certificate .*ca.pem",
            id="client-certificates",
        ),
        pytest.param(["-manifests", "d"], "write it --manifests", id="source-as-serve-spells-it"),
        pytest.param(["--grpc-prot", "1"], "did you mean --grpc-port", id="typo-of-serve"),
        pytest.param(["--drain-secnds", "1"], "did you mean --drain-seconds", id="typo-of-ours"),
        pytest.param(["stray"], "unexpected argument .*stray", id="stray-word"),
        pytest.param(["--bind-address", "localhost"], "--bind-address", id="bad-value"),
        pytest.param(["--kubeconfig", "f"], "--kubeconfig: works with Kubernetes", id="kubernetes"),
    ],
)
def test_what_cannot_work_is_refused_by_name(arguments, text):
    with pytest.raises(ConfigError, match=text):
        read(*arguments)


def test_the_time_to_drain_is_the_users():
    assert "2.5s" in default_arguments(StandaloneOptions(drain_seconds=2.5))
