"""The gateway configurations: a real Envoy takes them, and they are what docs/gateways.md says."""

import subprocess
from pathlib import Path

import pytest
import yaml

from epp.standalone.plan import find_envoy
from epp.testing.gateway_envoy import FLAVOURS, GatewayPorts, render

LEAN_ISTIO = Path(__file__).parents[3] / "config" / "components" / "lean-path-istio"
EXT_PROC = "type.googleapis.com/envoy.extensions.filters.http.ext_proc.v3.ExternalProcessor"
ENDPOINTS = ["127.0.0.1:8000", "127.0.0.2:8000"]
FULL_DUPLEX = {
    "request_header_mode": "SEND",
    "request_body_mode": "FULL_DUPLEX_STREAMED",
    "request_trailer_mode": "SEND",
    "response_header_mode": "SEND",
    "response_body_mode": "FULL_DUPLEX_STREAMED",
    "response_trailer_mode": "SEND",
}
LEAN = {
    **FULL_DUPLEX,
    "request_body_mode": "BUFFERED",
    "request_trailer_mode": "SKIP",
    "response_body_mode": "NONE",
}


PORTS = GatewayPorts()


def text(flavour):
    return render(flavour, ports=PORTS, endpoints=ENDPOINTS)


def parsed(flavour):
    return yaml.safe_load(text(flavour))


def manager(config):
    (listener,) = config["static_resources"]["listeners"]
    return listener["filter_chains"][0]["filters"][0]["typed_config"]


def route(config):
    return manager(config)["route_config"]["virtual_hosts"][0]["routes"][0]


def filters(config):
    return {item["name"]: item["typed_config"] for item in manager(config)["http_filters"]}


def ext_proc(config):
    (found,) = (f for f in filters(config).values() if f["@type"] == EXT_PROC)
    return found


def clusters(config):
    return {cluster["name"]: cluster for cluster in config["static_resources"]["clusters"]}


@pytest.mark.envoy
@pytest.mark.parametrize("flavour", FLAVOURS)
def test_envoy_accepts_the_configuration(flavour, tmp_path):
    config = tmp_path / "envoy.yaml"
    config.write_text(text(flavour))

    argv = [find_envoy(None), "--mode", "validate", "-c", str(config)]
    checked = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=60)

    assert checked.returncode == 0, checked.stderr[-2000:]


@pytest.mark.parametrize(
    ("flavour", "mode"),
    [
        pytest.param("kgateway", FULL_DUPLEX, id="kgateway"),
        pytest.param("istio", FULL_DUPLEX, id="istio"),
        pytest.param("istio-lean", LEAN, id="istio-lean"),
    ],
)
def test_every_filter_fails_open_and_takes_the_pick_as_metadata(flavour, mode):
    config = ext_proc(parsed(flavour))

    assert config["processing_mode"] == mode
    assert config["failure_mode_allow"] is True
    assert config["metadata_options"]["receiving_namespaces"] == {"untyped": ["envoy.lb"]}


@pytest.mark.parametrize("flavour", ["kgateway", "istio", "istio-lean"])
def test_every_epp_cluster_speaks_tls_and_verifies_nothing(flavour):
    checked = [c for c in clusters(parsed(flavour)).values() if "transport_socket" in c]

    assert checked
    for cluster in checked:
        common = cluster["transport_socket"]["typed_config"]["common_tls_context"]
        assert common["validation_context"] == {}


def test_istio_balances_by_metadata_alone_and_kgateway_by_a_subset_per_endpoint():
    istio = route(parsed("istio"))["route"]["cluster"]
    policy = clusters(parsed("istio"))[istio]["load_balancing_policy"]["policies"][0]
    kgateway = clusters(parsed("kgateway"))["endpoint-picker_test_p_8000"]

    sources = policy["typed_extension_config"]["typed_config"]["override_host_sources"]
    assert [set(source) for source in sources] == [{"metadata"}]
    assert kgateway["lb_subset_config"] == {
        "fallback_policy": "ANY_ENDPOINT",
        "subset_selectors": [{"keys": ["x-gateway-destination-endpoint"]}],
    }


def test_the_shipped_envoy_filters_make_the_lean_configuration_of_the_stock_one():
    patched = parsed("istio")
    for name in ("envoy_filter.yaml", "usage_envoy_filter.yaml"):
        for document in yaml.safe_load_all((LEAN_ISTIO / name).read_text()):
            apply_envoy_filter(patched, document["spec"]["configPatches"])

    (host,) = clusters(patched)["epp-lean"]["load_assignment"]["endpoints"][0]["lb_endpoints"]
    assert host["endpoint"] == {
        "address": {"socket_address": {"address": "epp", "port_value": 9002}},
        "health_check_config": {"port_value": 9003},
    }
    host["endpoint"] = {
        "address": {"socket_address": {"address": "127.0.0.1", "port_value": PORTS.epp}},
        "health_check_config": {"port_value": PORTS.epp_health},
    }
    assert patched == parsed("istio-lean")


def apply_envoy_filter(config, patches):
    """Apply an EnvoyFilter's patches, as far as ours go, the way Istio documents them."""
    for entry in patches:
        patch = entry["patch"]
        operation, value = patch["operation"], patch["value"]
        (listener,) = config["static_resources"]["listeners"]
        match entry["applyTo"], operation:
            case "LISTENER", "MERGE":
                merge(listener, value)
            case "NETWORK_FILTER", "MERGE":
                merge(listener["filter_chains"][0]["filters"][0], value)
            case "HTTP_FILTER", "INSERT_BEFORE" | "REPLACE":
                anchor = entry["match"]["listener"]["filterChain"]["filter"]["subFilter"]["name"]
                chain = manager(config)["http_filters"]
                at = [item["name"] for item in chain].index(anchor)
                chain[at : at + (operation == "REPLACE")] = [value]
            case "CLUSTER", "ADD":
                config["static_resources"]["clusters"].append(value)
            case unknown:
                raise NotImplementedError(unknown)


def merge(into, value):
    """Merge as protobuf does: messages field by field, lists appended, the rest replaced."""
    for key, new in value.items():
        old = into.get(key)
        if isinstance(old, dict) and isinstance(new, dict):
            merge(old, new)
        elif isinstance(old, list) and isinstance(new, list):
            old.extend(new)
        else:
            into[key] = new


def test_on_kgateways_lean_path_nobody_but_our_own_envoy_asks_the_epp():
    config = parsed("kgateway-lean")

    (cluster,) = clusters(config).values()
    address = cluster["load_assignment"]["endpoints"][0]["lb_endpoints"][0]["endpoint"]["address"]
    assert list(filters(config)) == ["envoy.filters.http.router"]
    assert address["socket_address"]["port_value"] == PORTS.own_listen
