"""Every container is hardened, and starts with flags that its program takes."""

import argparse
import re

from epp.modelsim import cli
from epp.server.options import parse
from epp.version import __version__

IN_A_POD = {"KUBERNETES_SERVICE_HOST": "10.96.0.1", "POD_NAME": "epp-6b7f9c5d4-x2x9z"}
OURS = f"endpoint-picker:{__version__}"


def pods(manifests):
    return [m["spec"]["template"]["spec"] for m in manifests if m["kind"] == "Deployment"]


def program(container):
    """Command and arguments as the kubelet runs them, references to the environment filled in."""
    words = (*container["command"], *container.get("args", ()))
    return [re.sub(r"\$\((\w+)\)", lambda match: f"value-of-{match[1]}", word) for word in words]


def serve_options(manifests, containers):
    (epp,) = [c for c in containers(manifests) if c["name"] == "epp"]
    words = program(epp)
    assert words[:2] == ["epp", "serve"]
    return epp, parse(words[2:], {**IN_A_POD, "NAMESPACE": "inference"})


def test_nothing_runs_as_root_or_can_become_it(manifests, containers):
    for pod in pods(manifests):
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["runAsUser"] >= 10_000
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    for container in containers(manifests):
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }


def test_memory_is_bounded_and_the_processor_is_not(manifests, containers):
    for container in containers(manifests):
        assert set(container["resources"]["requests"]) == {"cpu", "memory"}
        assert set(container["resources"]["limits"]) == {"memory"}


def test_images_are_pinned_and_ours_is_of_this_version(manifests, containers):
    images = {container["image"] for container in containers(manifests)}

    assert OURS in images
    assert [image for image in images if not re.search(r":[\w-]*v?\d+\.\d+\.\d+$", image)] == []


def test_the_endpoint_picker_takes_its_arguments(manifests, containers, one):
    _, options = serve_options(manifests, containers)

    assert options.pool_name == one(manifests, "InferencePool")["metadata"]["name"]
    assert options.pool_namespace == "inference"
    assert options.source_kind == "kubernetes"
    assert options.metrics_endpoint_auth is True


def test_ports_are_those_that_the_options_open(manifests, containers):
    epp, options = serve_options(manifests, containers)

    assert {port["name"]: port["containerPort"] for port in epp["ports"]} == {
        "ext-proc": options.grpc_port,
        "health": options.grpc_health_port,
        "metrics": options.metrics_port,
    }
    probes = [epp[key]["grpc"] for key in epp if key.endswith("Probe")]
    assert {probe["port"] for probe in probes} == {options.grpc_health_port}
    assert {probe["service"] for probe in probes} <= {"liveness", "readiness"}


def test_a_pod_gets_the_time_that_draining_takes(manifests, containers):
    epp, options = serve_options(manifests, containers)
    waits = epp.get("lifecycle", {}).get("preStop", {}).get("sleep", {}).get("seconds", 0)

    (pod,) = [pod for pod in pods(manifests) if epp in pod["containers"]]
    assert pod["terminationGracePeriodSeconds"] >= waits + options.drain_seconds + 5


def test_leaders_are_elected_among_several_only(manifests, combination, containers, one):
    _, options = serve_options(manifests, containers)
    spec = one(manifests, "Deployment", "epp")["spec"]

    assert options.leader_election is ("ha" in combination.components)
    if options.leader_election:
        assert spec["replicas"] > 1
        # Followers are never ready: an update that waits for them, or a budget, would never end.
        assert spec["strategy"]["rollingUpdate"]["maxUnavailable"] == "100%"
        assert [m for m in manifests if m["kind"] == "PodDisruptionBudget"] == []
    else:
        assert one(manifests, "PodDisruptionBudget")["spec"]["maxUnavailable"] == 1


def test_a_gateway_meets_tls_and_the_envoy_beside_us_does_not(manifests, combination, containers):
    _, options = serve_options(manifests, containers)

    beside = any(c["name"] == "envoy" for c in containers(manifests))
    assert options.secure_serving is not beside
    assert (options.cert_path is not None) is ("serving-certificate" in combination.components)


def test_the_simulator_takes_its_arguments(manifests, containers, one):
    (modelsim,) = [c for c in containers(manifests) if c["name"] == "modelsim"]
    parser = argparse.ArgumentParser()
    cli.add_arguments(parser)
    words = program(modelsim)

    options = cli.options_from(parser.parse_args(words[2:]))

    assert words[:2] == ["epp", "modelsim"]
    assert options.host == "0.0.0.0"
    assert options.name == "value-of-POD_NAME"
    targets = one(manifests, "InferenceModel", "chat")["spec"]["targetModels"]
    assert {t["name"] for t in targets} <= {*options.model_names, *options.loras}
    assert [p["number"] for p in one(manifests, "InferencePool")["spec"]["targetPorts"]] == [
        options.port
    ]
