"""What is read from an endpoint picker's command line is what ``epp serve`` makes of it."""

import pytest

from epp.server.health import LIVENESS
from epp.server.options import parse

IN_A_POD = {"KUBERNETES_SERVICE_HOST": "10.96.0.1", "NAMESPACE": "here"}


@pytest.fixture
def facts(hack):
    return hack("picker_facts")


@pytest.fixture
def picker(hack, facts):
    """The endpoint picker that a container with these arguments is."""
    objects = hack("manifest_objects")

    def made(*words):
        container = {"name": "epp", "command": ["epp", "serve"], "args": list(words)}
        manifest = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": "epp", "namespace": "here"},
            "spec": {"containers": [container]},
        }
        (template,) = objects.Objects([manifest]).templates()
        (found,) = facts.pickers_of(template)
        return found

    return made


@pytest.mark.parametrize(
    "words",
    [
        pytest.param([], id="defaults"),
        pytest.param(["--secure-serving=false"], id="off"),
        pytest.param(["--secure-serving", "false"], id="off-as-a-word"),
        pytest.param(["--secure-serving", "--health-checking"], id="bare"),
        pytest.param(["-secureServing=F"], id="spelling-of-v0"),
        pytest.param(["--secure-serving=false", "--secure-serving=true"], id="the-last-counts"),
        pytest.param(["--ha-enable-leader-election"], id="leader-election"),
        pytest.param(["--ha-enable-leader-election=false"], id="no-leader-election"),
        pytest.param(["--metrics-endpoint-auth=false"], id="open-metrics"),
        pytest.param(["--metrics-port", "9999"], id="metrics-port"),
        pytest.param(["--cert-path=/etc/tls"], id="certificate"),
    ],
)
def test_it_is_what_the_endpoint_picker_makes_of_its_arguments(picker, words):
    arguments = ["--pool-name", "pool", *words]

    found = picker(*arguments)

    options = parse(arguments, IN_A_POD)
    assert found.pool_name == options.pool_name
    assert found.serves_tls is options.secure_serving
    assert found.is_self_signed is (options.cert_path is None)
    assert found.elects_a_leader is options.leader_election
    assert found.asks_who_reads_metrics is options.metrics_endpoint_auth
    assert found.metrics_port == options.metrics_port
    assert found.serves_metrics_with_tls is (options.metrics_cert_dir is not None)


def test_metrics_with_a_certificate_are_read_with_tls(picker):
    assert picker("--pool-name=pool", "--metrics-cert-dir=/x").serves_metrics_with_tls


@pytest.mark.parametrize("flag", ["--manifests=/x", "--kubeconfig=/x", "--endpoint=10.0.0.1:80"])
def test_with_another_source_no_account_is_needed(picker, flag):
    assert picker("--pool-name=pool").asks_kubernetes
    assert not picker("--pool-name=pool", flag).asks_kubernetes


def test_the_service_that_only_tells_life_is_the_one_that_is_served(facts):
    assert facts.LIVENESS == LIVENESS
