"""Every container is hardened, and starts with flags that its program takes."""

import argparse
import datetime as dt
import re

import pytest

from epp.modelsim import cli
from epp.server.health import LIVENESS, READINESS
from epp.server.options import parse
from epp.server.tls import CERTIFICATE_FILE, KEY_FILE, load_pair, self_signed_pair
from epp.version import __version__

IN_A_POD = {"KUBERNETES_SERVICE_HOST": "10.96.0.1", "POD_NAME": "epp-6b7f9c5d4-x2x9z"}
NO_DEADLINE = 2**31 - 1
"""To Kubernetes the largest ``progressDeadlineSeconds`` means that there is none."""

OURS = f"endpoint-picker:{__version__}"


def pods(manifests):
    return [m["spec"]["template"]["spec"] for m in manifests if m["kind"] == "Deployment"]


def program(container):
    """Command and arguments as the kubelet runs them, references to the environment filled in."""
    words = (*container["command"], *container.get("args", ()))
    return [re.sub(r"\$\((\w+)\)", lambda match: f"value-of-{match[1]}", word) for word in words]


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    """A directory with a pair, where a pod has one of an init container."""
    directory = tmp_path_factory.mktemp("certificate")
    pair = self_signed_pair(names=("localhost",), now=dt.datetime.now(dt.UTC))
    (directory / CERTIFICATE_FILE).write_bytes(pair.certificate)
    (directory / KEY_FILE).write_bytes(pair.key)
    return directory


@pytest.fixture
def serve_options(manifests, containers, certificate):
    """The container of the endpoint picker, and its options as it reads them."""
    (epp,) = [c for c in containers(manifests) if c["name"] == "epp"]
    words = [word.replace("/run/metrics-cert", str(certificate)) for word in program(epp)]
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


def test_the_endpoint_picker_takes_its_arguments(manifests, serve_options, one):
    _, options = serve_options

    assert options.pool_name == one(manifests, "InferencePool")["metadata"]["name"]
    assert options.pool_namespace == "inference"
    assert options.source_kind == "kubernetes"
    assert options.metrics_endpoint_auth is True


def test_ports_are_those_that_the_options_open(serve_options):
    epp, options = serve_options

    assert {port["name"]: port["containerPort"] for port in epp["ports"]} == {
        "ext-proc": options.grpc_port,
        "health": options.grpc_health_port,
        "metrics": options.metrics_port,
    }
    probes = [epp[key]["grpc"] for key in epp if key.endswith("Probe")]
    assert {probe["port"] for probe in probes} == {options.grpc_health_port}
    assert {probe["service"] for probe in probes} <= {LIVENESS, READINESS}


def test_a_hung_one_is_restarted_and_one_that_waits_is_not(serve_options):
    """A follower is unready for as long as its leader lives."""
    epp, _ = serve_options

    assert epp["livenessProbe"]["grpc"]["service"] == LIVENESS
    assert 10 <= failing_seconds(epp["livenessProbe"]) <= 60


def test_who_cannot_pick_is_not_asked(serve_options, combination):
    """Beside an Envoy the start waits for it instead: later on Envoy does without."""
    epp, options = serve_options
    beside = options.eds_file is not None
    probe = epp["startupProbe" if beside else "readinessProbe"]

    assert probe["grpc"]["service"] == READINESS
    assert beside or failing_seconds(probe) <= 5
    assert beside is ("readinessProbe" not in epp)


def failing_seconds(probe):
    """How long a pod fails until something is done about it."""
    return probe["periodSeconds"] * probe["failureThreshold"]


def test_it_runs_as_the_account_that_has_the_rules(manifests, one):
    pod = one(manifests, "Deployment", "epp")["spec"]["template"]["spec"]

    bindings = [m for m in manifests if m["kind"] == "RoleBinding"]
    assert bindings
    for binding in bindings:
        assert [subject["name"] for subject in binding["subjects"]] == [pod["serviceAccountName"]]


def test_replicas_are_spread_over_nodes_where_there_are_several(manifests, one):
    template = one(manifests, "Deployment", "epp")["spec"]["template"]

    (spread,) = template["spec"]["topologySpreadConstraints"]
    assert spread["topologyKey"] == "kubernetes.io/hostname"
    assert spread["whenUnsatisfiable"] == "ScheduleAnyway"
    assert spread["labelSelector"]["matchLabels"].items() <= template["metadata"]["labels"].items()
    assert spread["matchLabelKeys"] == ["pod-template-hash"]


def test_the_metrics_port_speaks_what_prometheus_does(manifests, combination, serve_options, one):
    epp, options = serve_options
    monitored = "monitoring" in combination.components

    assert (options.metrics_cert_dir is not None) is monitored
    if monitored:
        (endpoint,) = one(manifests, "ServiceMonitor")["spec"]["endpoints"]
        assert endpoint["scheme"] == "https"
        assert endpoint["tlsConfig"] == {"insecureSkipVerify": True}
        assert endpoint["authorization"]["credentials"]["name"] == "epp-metrics-reader"
        mounts = {mount["name"]: mount["mountPath"] for mount in epp["volumeMounts"]}
        assert f"--metrics-cert-dir={mounts['metrics-cert']}" in epp["args"]


def test_the_metrics_certificate_is_there_before_the_endpoint_picker(render, one, tmp_path):
    """The init container's program writes what the metrics port can serve."""
    manifests = render(overlay="default", components=("monitoring",))
    (init,) = one(manifests, "Deployment", "epp")["spec"]["template"]["spec"]["initContainers"]
    interpreter, flag, text = init["command"]

    exec(text.replace("/run/metrics-cert", str(tmp_path)), {})

    assert (interpreter, flag) == ("python", "-c")
    assert load_pair(tmp_path).key.startswith(b"-----BEGIN PRIVATE KEY-----")
    assert [mount["mountPath"] for mount in init["volumeMounts"]] == ["/run/metrics-cert"]


def test_a_pod_gets_the_time_that_draining_takes(manifests, serve_options):
    epp, options = serve_options
    waits = epp.get("lifecycle", {}).get("preStop", {}).get("sleep", {}).get("seconds", 0)

    (pod,) = [pod for pod in pods(manifests) if epp in pod["containers"]]
    assert pod["terminationGracePeriodSeconds"] >= waits + options.drain_seconds + 5


def test_leaders_are_elected_among_several_only(manifests, combination, serve_options, one):
    epp, options = serve_options
    spec = one(manifests, "Deployment", "epp")["spec"]

    assert options.leader_election is ("ha" in combination.components)
    if options.leader_election:
        assert spec["replicas"] > 1
        # Followers are never ready: an update that waits for them, or a budget, would never end.
        assert spec["strategy"]["rollingUpdate"]["maxUnavailable"] == "100%"
        assert [m for m in manifests if m["kind"] == "PodDisruptionBudget"] == []
        # Nor does the Deployment ever count as rolled out: with a deadline it would be a failed one.
        assert spec["progressDeadlineSeconds"] == NO_DEADLINE
        # The old leader serves while a new one starts, lists and probes: a few seconds.
        assert epp["lifecycle"]["preStop"]["sleep"]["seconds"] >= 10
    else:
        assert "progressDeadlineSeconds" not in spec
        assert one(manifests, "PodDisruptionBudget")["spec"]["maxUnavailable"] == 1


def test_a_gateway_meets_tls_and_the_envoy_beside_us_does_not(
    manifests, combination, containers, serve_options
):
    _, options = serve_options

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
