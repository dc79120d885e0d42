"""The plan: what Envoy and the EPP are told fits together."""

from collections.abc import Sequence

import pytest
import yaml

from epp.standalone.options import StandaloneOptions
from epp.standalone.plan import Plan, make_plan, message_timeout_seconds
from epp.standalone.serve_flags import read_serve_flags

MIB = 1 << 20


@pytest.fixture
def plan_of(tmp_path):
    def make(*serve_args: str, **changes) -> Plan:
        settings = {"endpoints": ("10.0.0.1:8000",), "port": 0, "admin_port": 0, **changes}
        options = StandaloneOptions(serve_args=serve_args, **settings)
        return make_plan(options, read_serve_flags(options, {}), tmp_path)

    return make


def envoy_config(plan: Plan, failure_mode: str = "FailOpen"):
    plan.envoy_spec(failure_mode=failure_mode)
    return yaml.safe_load((plan.state_dir / "envoy.yaml").read_text())


def epp_cluster(config):
    (found,) = (c for c in config["static_resources"]["clusters"] if c["name"] == "epp")
    return found


def last(argv: Sequence[str], flag: str) -> str:
    """The value that counts: of a flag given twice the last one."""
    return argv[len(argv) - list(reversed(argv)).index(flag)]


@pytest.mark.parametrize("arguments", [[], ["--secure-serving"]], ids=["plain", "tls"])
def test_envoy_speaks_tls_when_the_epp_does(plan_of, arguments):
    plan = plan_of(*arguments)

    cluster = epp_cluster(envoy_config(plan))
    assert ("transport_socket" in cluster) == bool(arguments)
    assert ("--secure-serving" in plan.epp.argv) == bool(arguments)


def test_envoy_calls_the_epp_on_the_ports_that_it_is_given(plan_of):
    plan = plan_of("--grpc-port", "0", "--bind-address", "::1")

    (host,) = epp_cluster(envoy_config(plan))["load_assignment"]["endpoints"][0]["lb_endpoints"]
    address = host["endpoint"]["address"]["socket_address"]
    assert address == {"address": "::1", "port_value": int(last(plan.epp.argv, "--grpc-port"))}
    assert address["port_value"] == plan.grpc_port > 0
    assert last(plan.epp.argv, "--bind-address") == "::1"


@pytest.mark.parametrize(("mode", "open_"), [("FailOpen", True), ("FailClose", False)])
def test_envoy_follows_the_failure_mode(plan_of, mode, open_):
    plan_of_it = plan_of()

    plan_of_it.envoy_spec(failure_mode=mode)

    text = (plan_of_it.state_dir / "envoy.yaml").read_text()
    assert f"failure_mode_allow: {str(open_).lower()}" in text


@pytest.mark.parametrize(
    ("mib", "seconds"),
    [
        pytest.param(1, 2.0, id="small-bodies"),
        pytest.param(16, 2.0, id="default"),
        pytest.param(40, 5.0, id="large-bodies"),
    ],
)
def test_envoy_waits_longer_for_larger_bodies(plan_of, mib, seconds):
    text_of = plan_of(f"--max-request-body={mib}MiB")

    text_of.envoy_spec(failure_mode="FailOpen")

    assert message_timeout_seconds(mib * MIB) == seconds
    text = (text_of.state_dir / "envoy.yaml").read_text()
    assert f"message_timeout: {seconds:g}s\n" in text


@pytest.mark.parametrize(
    ("host", "url"),
    [
        pytest.param("127.0.0.1", "http://127.0.0.1:", id="loopback"),
        pytest.param("0.0.0.0", "http://127.0.0.1:", id="every-address"),
        pytest.param("::", "http://[::1]:", id="every-ipv6-address"),
        pytest.param("::1", "http://[::1]:", id="ipv6"),
    ],
)
def test_the_url_is_one_that_clients_can_call(plan_of, host, url):
    plan = plan_of(host=host)

    assert plan.url == f"{url}{plan.port}/v1"


def test_the_log_of_the_epp_is_json_whatever_the_user_wants_to_see(plan_of):
    plan = plan_of("--zap-encoder=console")

    assert last(plan.epp.argv, "--zap-encoder") == "json"
    assert last(plan.epp.argv, "--log-format") == "json"


def test_the_epp_may_take_its_time_to_drain(plan_of):
    assert plan_of("--drain-timeout=60s").epp.stop_seconds > 60
