"""Options: every spelling of a flag, the environment, and errors that name flag and value."""

import argparse
from pathlib import Path
from typing import Any

import pytest

from epp.errors import ConfigError
from epp.logs import Logger
from epp.metrics.families import NameSet
from epp.server.flag_table import SERVE_FLAGS
from epp.server.options import Options, add_serve_arguments, parse

SOURCE = ["--endpoint", "10.0.0.5:8000"]
MIB = 2**20


def serve(*argv: str, **env: str) -> Options:
    return parse([*SOURCE, *argv], env)


@pytest.mark.parametrize(
    "argv, field, want",
    [
        pytest.param(["--pool-name", "x"], "pool_name", "x", id="kebab"),
        pytest.param(["--pool-name=x"], "pool_name", "x", id="kebab-equals"),
        pytest.param(["-pool-name", "x"], "pool_name", "x", id="one-dash"),
        pytest.param(["--poolName", "x"], "pool_name", "x", id="camel"),
        pytest.param(["-poolName", "x"], "pool_name", "x", id="camel-one-dash"),
        pytest.param(["-poolName=x"], "pool_name", "x", id="camel-one-dash-equals"),
        pytest.param(["--poolName=x", "--pool-name=y"], "pool_name", "y", id="last-one-wins"),
        pytest.param(["--grpcPort", "1"], "grpc_port", 1, id="grpc-port"),
        pytest.param(["-grpcHealthPort=2"], "grpc_health_port", 2, id="health-port"),
        pytest.param(["--metricsPort=0"], "metrics_port", 0, id="metrics-port-free"),
        pytest.param(["--secure-serving"], "secure_serving", True, id="switch-alone"),
        pytest.param(["--secure-serving=false"], "secure_serving", False, id="switch-false"),
        pytest.param(["--secureServing=0"], "secure_serving", False, id="switch-zero"),
        pytest.param(["--secure-serving=T"], "secure_serving", True, id="switch-t"),
        pytest.param(["--cert-path", "/c"], "cert_path", Path("/c"), id="cert-path"),
        pytest.param(["--cert-path", "/c"], "cert_reload", True, id="reload-with-files"),
        pytest.param(
            ["--cert-path=/c", "--enable-cert-reload=false"], "cert_reload", False, id="no-reload"
        ),
        pytest.param([], "cert_reload", False, id="nothing-to-reload"),
        pytest.param(["--healthChecking"], "health_checking", True, id="health-checking"),
        pytest.param(
            ["--leaderElectLeaseDuration=30s"], "lease_duration_seconds", 30.0, id="lease-duration"
        ),
        pytest.param(["--drain-timeout=1m30s"], "drain_seconds", 90.0, id="duration"),
        pytest.param(["--drain-timeout=0"], "drain_seconds", 0.0, id="no-drain"),
        pytest.param(
            ["--refreshMetricsInterval=100ms"], "refresh_metrics_interval_seconds", 0.1,
            id="interval",
        ),
        pytest.param(
            ["--totalQueuedRequestsMetric", "q{a=b}"], "queued_requests_metric", "q{a=b}",
            id="queued-metric",
        ),
        pytest.param(["--loraInfoMetric="], "lora_info_metric", "", id="metric-disabled"),
        pytest.param([], "lora_info_metric", None, id="metric-by-engine"),
        pytest.param(
            ["--kvCacheUsagePercentageMetric=k"], "kv_usage_metric", "k", id="kv-metric"
        ),
        pytest.param(
            ["--modelServerMetricsPort=9000"], "model_server_metrics_port", 9000, id="server-port"
        ),
        pytest.param(
            ["--model-server-metrics-scheme=https"], "model_server_metrics_scheme", "https",
            id="server-scheme",
        ),
        pytest.param(
            ["--modelServerMetricsHttpsInsecureSkipVerify=false"],
            "model_server_metrics_insecure_skip_verify", False, id="server-verify",
        ),
        pytest.param(["-v", "4"], "verbosity", 4, id="v"),
        pytest.param(["-v=5"], "verbosity", 5, id="v-equals"),
        pytest.param(["--v=3"], "verbosity", 3, id="v-two-dashes"),
        pytest.param(["-v=-1"], "verbosity", 2, id="v-negative"),
        pytest.param(["-v=9"], "verbosity", 5, id="v-too-high"),
        pytest.param(["-v=3", "--zap-log-level=debug"], "verbosity", 4, id="zap-level-wins"),
        pytest.param(["--zap-log-level=5"], "verbosity", 5, id="zap-level-number"),
        pytest.param(["--zap-encoder=json"], "log_format", "json", id="zap-encoder"),
        pytest.param(["--log-format=json"], "log_format", "json", id="log-format"),
        pytest.param(
            ["--max-request-body=1MiB"], "max_request_body_bytes", MIB, id="max-request-body"
        ),
        pytest.param(["--unknown-model=serve"], "unknown_model", "serve", id="unknown-model"),
        pytest.param(["--compatibility", "v0.3"], "compatibility", "v0.3", id="compatibility"),
        pytest.param(["--eds-file=e"], "eds_file", Path("e"), id="eds-file"),
        pytest.param(["--max-label-values=7"], "max_label_values", 7, id="label-values"),
        pytest.param(
            ["--metric-names=inference-model,llm-d-epp"], "metric_names",
            (NameSet.INFERENCE_MODEL, NameSet.LLM_D), id="metric-names",
        ),
        pytest.param(
            ["--metrics-staleness-threshold=500ms"], "metrics_staleness_seconds", 0.5, id="stale"
        ),
        pytest.param(["--bind-address=::1"], "bind_address", "::1", id="bind-address"),
        pytest.param(
            ["--grpc-max-recv-msg-size=17MiB"], "grpc_max_receive_bytes", 17 * MIB, id="receive"
        ),
        pytest.param([], "grpc_max_receive_bytes", 33 * MIB, id="receive-default"),
        pytest.param(
            ["--max-request-body=64MiB"], "grpc_max_receive_bytes", 65 * MIB, id="receive-follows"
        ),
        pytest.param(["--grpc-max-send-msg-size="], "grpc_max_send_bytes", None, id="send-none"),
        pytest.param(
            ["-endpoint", "[::1]:80"], "endpoints", (("10.0.0.5", 8000), ("::1", 80)),
            id="endpoint-again",
        ),
    ],
)  # fmt: skip
def test_a_flag_sets_its_option(argv: list[str], field: str, want: Any) -> None:
    assert getattr(serve(*argv), field) == want


def test_manifests_are_the_other_source() -> None:
    options = parse(["-manifests", "pool"], {})

    assert (options.manifests, options.endpoints) == (Path("pool"), ())


def test_defaults_of_the_flags_are_the_defaults_of_the_fields() -> None:
    options = serve()

    assert options == Options(endpoints=options.endpoints)


@pytest.mark.parametrize(
    "argv",
    [
        pytest.param(["--tracing=false"], id="tracing-off"),
        pytest.param(["--tracing=true"], id="tracing-on"),
        pytest.param(["--metrics-endpoint-auth=false"], id="auth-off"),
        pytest.param(["--metrics-endpoint-auth"], id="auth-on"),
        pytest.param(["--enable-pprof=false"], id="pprof-off"),
        pytest.param(["--ha-enable-leader-election=false"], id="election-off"),
        pytest.param(["--config-file="], id="no-config-file"),
        pytest.param(["--health-checking=false"], id="health-off"),
        pytest.param(["--pool-group=inference.networking.k8s.io"], id="pool-group"),
        pytest.param(["--tls-min-version=VersionTLS12"], id="tls-1.2"),
        pytest.param(["--tls-min-version="], id="tls-library-default"),
        pytest.param(["--enable-cert-reload"], id="reload-of-nothing"),
        pytest.param(["--refreshPrometheusMetricsInterval=1s"], id="gauge-interval"),
        pytest.param(["-destinationEndpointHintKey", "x-gateway-destination-endpoint"], id="key"),
        pytest.param(["--destinationEndpointHintMetadataNamespace=envoy.lb"], id="namespace"),
        pytest.param(["--zap-devel"], id="zap-devel"),
        pytest.param(["--zap-time-encoding=rfc3339"], id="zap-time"),
        pytest.param(["--zap-stacktrace-level=panic"], id="zap-stacktrace"),
        pytest.param(["--allow-experimental-plugins"], id="experimental"),
    ],
)
def test_values_that_change_nothing_are_accepted(argv: list[str]) -> None:
    assert serve(*argv) == serve()


@pytest.mark.parametrize(
    "argv, flag, value",
    [
        pytest.param(["--ha-enable-leader-election"], "--ha-enable-leader-election", "true", id="ha"),
        pytest.param(["--configFile", "c.yaml"], "--config-file", "c.yaml", id="config-file"),
        pytest.param(["--config-text", "x: y"], "--config-text", "x: y", id="config-text"),
        pytest.param(["--endpoint-selector", "a=b"], "--endpoint-selector", "a=b", id="selector"),
        pytest.param(["--endpoint-target-ports=80"], "--endpoint-target-ports", "80", id="ports"),
        pytest.param(["--emit-endpoint-scores"], "--emit-endpoint-scores", "true", id="scores"),
        pytest.param(["--tls-cipher-suites=X"], "--tls-cipher-suites", "X", id="ciphers"),
        pytest.param(
            ["--transport=grpcio", "--tls-min-version=VersionTLS11"], "--tls-min-version",
            "VersionTLS11", id="tls-1.1"
        ),
        pytest.param(["--tls-min-version=1.2"], "--tls-min-version", "1.2", id="tls-no-version"),
        pytest.param(
            ["--transport=grpcio", "--tls-cipher-suites=TLS_RSA_WITH_RC4_128_SHA"],
            "--tls-cipher-suites", "TLS_RSA_WITH_RC4_128_SHA", id="cipher-grpcio-lacks",
        ),
        pytest.param(
            ["--tls-cipher-suites=TLS_AES_128_GCM_SHA256"], "--tls-cipher-suites",
            "TLS_AES_128_GCM_SHA256", id="cipher-tls-1.3-only",
        ),
        pytest.param(["--metrics-cert-dir=/c"], "--metrics-cert-dir", "/c", id="metrics-tls-open"),
        pytest.param(
            ["--metrics-client-ca-file=/c"], "--metrics-client-ca-file", "/c", id="ca-without-tls"
        ),
        pytest.param(["--kubeconfig=k"], "--kubeconfig", "k", id="kubeconfig-without-cluster"),
        pytest.param(["--kube-context=c"], "--kube-context", "c", id="context-without-cluster"),
        pytest.param(
            ["--pool-group=inference.networking.x-k8s.io"], "--pool-group",
            "inference.networking.x-k8s.io", id="group-without-cluster",
        ),
        pytest.param(
            ["--leader-elect-lease-duration=500ms"], "--leader-elect-lease-duration", "0.5s",
            id="lease-below-a-second",
        ),
        pytest.param(
            ["--leader-elect-lease-duration=15500ms"], "--leader-elect-lease-duration", "15.5s",
            id="lease-with-a-fraction",
        ),
        pytest.param(
            ["--leader-elect-lease-duration=876000h"], "--leader-elect-lease-duration", "s",
            id="lease-of-a-century",
        ),
        pytest.param(
            ["--leader-elect-renew-deadline=15s"], "--leader-elect-renew-deadline", "15s",
            id="renew-not-below-lease",
        ),
        pytest.param(
            ["--leader-elect-retry-period=10s"], "--leader-elect-retry-period", "10s",
            id="retry-not-below-renew",
        ),
        pytest.param(["--pool-group=x"], "--pool-group", "x", id="pool-group"),
        pytest.param(
            ["--destinationEndpointHintKey=x"], "--destination-endpoint-hint-key", "x", id="key"
        ),
        pytest.param(["--zap-time-encoding=epoch"], "--zap-time-encoding", "epoch", id="zap-time"),
        pytest.param(["--grpc-port=abc"], "--grpc-port", "abc", id="port-word"),
        pytest.param(["--grpcPort=65536"], "--grpc-port", "65536", id="port-too-large"),
        pytest.param(["--metrics-port=9002"], "--metrics-port", "9002", id="port-taken"),
        pytest.param(["--secure-serving=maybe"], "--secure-serving", "maybe", id="bool"),
        pytest.param(["--drain-timeout=30"], "--drain-timeout", "30", id="duration-no-unit"),
        pytest.param(["--drain-timeout=-1s"], "--drain-timeout", "-1s", id="duration-negative"),
        pytest.param(
            ["--refresh-metrics-interval=0"], "--refresh-metrics-interval", "0", id="interval-zero"
        ),
        pytest.param(["--endpoint=localhost:80"], "--endpoint", "localhost:80", id="host-name"),
        pytest.param(["--endpoint=10.0.0.5:8000"], "--endpoint", "10.0.0.5:8000", id="twice"),
        pytest.param(["--max-request-body=-1"], "--max-request-body", "-1", id="body-negative"),
        pytest.param(
            ["--grpc-max-recv-msg-size=16MiB"], "--grpc-max-recv-msg-size", str(16 * MIB),
            id="receive-below-body",
        ),
        pytest.param(
            ["--grpc-max-send-msg-size=1MiB"], "--grpc-max-send-msg-size", str(MIB),
            id="send-below-body",
        ),
        pytest.param(
            ["--grpc-max-connection-memory=1KiB"], "--grpc-max-connection-memory", "1024",
            id="connection-memory-below-a-message",
        ),
        pytest.param(["--unknown-model=drop"], "--unknown-model", "drop", id="unknown-model"),
        pytest.param(["--transport=quic"], "--transport", "quic", id="transport"),
        pytest.param(
            ["--transport=grpcio", "--tls-min-version=VersionTLS13"], "--tls-min-version",
            "VersionTLS13", id="grpcio-has-no-tls-bounds",
        ),
        pytest.param(
            ["--grpc-client-ca-file=/ca", "--secure-serving=false"], "--grpc-client-ca-file",
            "/ca", id="client-ca-without-tls",
        ),
        pytest.param(
            ["--grpc-client-ca-file=/ca", "--transport=grpcio"], "--grpc-client-ca-file",
            "/ca", id="client-ca-with-grpcio",
        ),
        pytest.param(
            ["--grpc-client-ca-file=/no/such/ca"], "--grpc-client-ca-file", "/no/such/ca",
            id="client-ca-unreadable",
        ),
        pytest.param(["--metric-names=v7"], "--metric-names", "v7", id="metric-names"),
        pytest.param(["--max-label-values=0"], "--max-label-values", "0", id="label-values"),
        pytest.param(["--bind-address=example"], "--bind-address", "example", id="bind-address"),
        pytest.param(
            ["--model-server-metrics-path=metrics"], "--model-server-metrics-path", "metrics",
            id="relative-path",
        ),
        pytest.param(["-v=x"], "-v", "x", id="v-word"),
        pytest.param(["--zap-log-level=loud"], "--zap-log-level", "loud", id="zap-level"),
        pytest.param(["--log-format=console", "--zap-encoder=json"], "--zap-encoder", "json",
                     id="two-formats"),
        pytest.param(["--manifests=d"], "command line", "d", id="two-sources"),
    ],
)  # fmt: skip
def test_a_refused_value_is_named_with_its_flag(argv: list[str], flag: str, value: str) -> None:
    with pytest.raises(ConfigError) as caught:
        serve(*argv)

    assert str(caught.value).startswith(f"{flag}: ")
    assert value in str(caught.value)


@pytest.mark.parametrize(
    "argument, want",
    [
        pytest.param("--pol-name=x", "--pool-name", id="typing-error"),
        pytest.param("--poolname", "--pool-name", id="case"),
        pytest.param("--grpc-prot", "--grpc-port", id="swapped"),
        pytest.param("--manifest", "--manifests", id="singular"),
    ],
)
def test_a_mistyped_flag_suggests_the_nearest(argument: str, want: str) -> None:
    with pytest.raises(ConfigError, match=f"unknown flag; did you mean {want}"):
        serve(argument)


@pytest.mark.parametrize(
    "argument, want",
    [
        pytest.param("--zzz", "--zzz: unknown flag", id="nothing-near"),
        pytest.param("stray", "unexpected argument", id="positional"),
    ],
)
def test_other_leftovers_are_refused(argument: str, want: str) -> None:
    with pytest.raises(ConfigError, match=want):
        serve(argument)


@pytest.mark.parametrize(
    "name, text, field, want",
    [
        pytest.param("NAMESPACE", "prod", "pool_namespace", "prod", id="namespace"),
        pytest.param("NAMESPACE", "", "pool_namespace", None, id="namespace-empty"),
        pytest.param("POD_NAME", "epp-6b7f-x2x9z", "pod_name", "epp-6b7f-x2x9z", id="pod-name"),
        pytest.param(
            "REFRESH_METRICS_INTERVAL", "1s", "refresh_metrics_interval_seconds", 1.0, id="refresh"
        ),
        pytest.param("MODEL_SERVER_METRICS_PORT", "9", "model_server_metrics_port", 9, id="port"),
        pytest.param(
            "MODEL_SERVER_METRICS_HTTPS_INSECURE_SKIP_VERIFY", "false",
            "model_server_metrics_insecure_skip_verify", False, id="verify",
        ),
        pytest.param("KV_CACHE_THRESHOLD", "0.5", "kv_cache_threshold", 0.5, id="kv"),
        pytest.param("KV_CACHE_THRESHOLD", "7", "kv_cache_threshold", 7.0, id="kv-unchecked-range"),
        pytest.param("QUEUE_THRESHOLD_CRITICAL", "9", "queue_threshold_critical", 9, id="queue"),
        pytest.param("QUEUING_THRESHOLD_LORA", "50", "queuing_threshold_lora", 50, id="lora-queue"),
        pytest.param("LORA_AFFINITY_THRESHOLD", "0.9", "lora_affinity_threshold", 0.9, id="lora"),
        pytest.param("SD_QUEUE_DEPTH_THRESHOLD", "8", "saturation_queue_depth", 8, id="sd-queue"),
        pytest.param(
            "SD_KV_CACHE_UTIL_THRESHOLD", "0.9", "saturation_kv_cache_threshold", 0.9, id="sd-kv"
        ),
        pytest.param(
            "SD_METRICS_STALENESS_THRESHOLD", "1s", "saturation_staleness_seconds", 1.0,
            id="sd-staleness",
        ),
    ],
)  # fmt: skip
def test_the_environment_replaces_a_default(name: str, text: str, field: str, want: Any) -> None:
    options = serve(**{name: text})

    assert getattr(options, field) == want
    assert options.notices == ()


@pytest.mark.parametrize(
    "argv, message",
    [
        pytest.param(["--drain-timeout", "-1s"], "--drain-timeout: must not be .*'-1s'", id="time"),
        pytest.param(["-drainTimeout", "-1.5s"], "--drain-timeout: .*'-1.5s'", id="camel"),
        pytest.param(
            ["--leader-elect-lease-duration", "-5s"], "--leader-elect-lease-duration: .*'-5s'",
            id="lease",
        ),
        pytest.param(["--max-request-body", "-1MiB"], "--max-request-body: .*'-1MiB'", id="bytes"),
        pytest.param(["--grpc-port", "-1"], "--grpc-port: .*'-1'", id="whole-number"),
        pytest.param(["--pool-name", "-.5x"], "--pool-name: .*'-.5x'", id="name"),
        pytest.param(["--secure-serving", "-1x"], "--secure-serving: .*'-1x'", id="switch"),
        pytest.param(
            ["--endpoint-target-ports", "-1,2"], "--endpoint-target-ports: .*'-1,2'", id="list"
        ),
    ],
)  # fmt: skip
def test_a_negative_value_is_a_value_and_is_named(argv: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        serve(*argv)


def test_a_negative_value_that_means_something_is_taken() -> None:
    assert serve("-v", "-1").verbosity == 2


def test_a_flag_wins_over_the_environment() -> None:
    assert serve("--pool-namespace=a", NAMESPACE="b").pool_namespace == "a"


@pytest.mark.parametrize(
    "name, text",
    [
        pytest.param("KV_CACHE_THRESHOLD", "high", id="kv-word"),
        pytest.param("QUEUE_THRESHOLD_CRITICAL", "1.5", id="queue-fraction"),
        pytest.param("SD_QUEUE_DEPTH_THRESHOLD", "0", id="sd-queue-zero"),
        pytest.param("SD_KV_CACHE_UTIL_THRESHOLD", "1", id="sd-kv-one"),
        pytest.param("SD_METRICS_STALENESS_THRESHOLD", "-1s", id="sd-staleness-negative"),
        pytest.param("REFRESH_METRICS_INTERVAL", "fast", id="refresh-word"),
        pytest.param("MODEL_SERVER_METRICS_PORT", "http", id="port-word"),
    ],
)
def test_an_unusable_variable_gives_the_default_and_a_notice(name: str, text: str) -> None:
    options = serve(**{name: text})

    assert options == serve()
    [notice] = options.notices
    assert (notice.fields["variable"], notice.fields["value"]) == (name, text)


def test_a_bad_scheme_in_the_environment_is_an_error() -> None:
    with pytest.raises(ConfigError, match=r"MODEL_SERVER_METRICS_SCHEME.*ftp"):
        serve(MODEL_SERVER_METRICS_SCHEME="ftp")


def test_a_short_interval_is_raised_with_a_notice() -> None:
    options = serve("--refresh-metrics-interval=1ms")

    assert options.refresh_metrics_interval_seconds == 0.05
    assert [notice.event for notice in options.notices] == [
        "refresh interval raised to its minimum"
    ]


def test_notices_are_logged(capsys: pytest.CaptureFixture[str]) -> None:
    serve(KV_CACHE_THRESHOLD="high").log_notices(Logger("test"))

    captured = capsys.readouterr()
    assert "environment variable ignored" in captured.out + captured.err


def test_ports_may_all_be_free_ones() -> None:
    options = serve("--grpc-port=0", "--grpc-health-port=0", "--metrics-port=0")

    assert (options.grpc_port, options.grpc_health_port, options.metrics_port) == (0, 0, 0)


def test_the_help_lists_each_flag_once_with_its_default() -> None:
    parser = argparse.ArgumentParser(prog="epp serve", allow_abbrev=False)
    add_serve_arguments(parser)

    text = parser.format_help()

    for flag in SERVE_FLAGS:
        assert text.count(f"\n  {flag.spelling} ") == 1, flag.name
    assert "default: 16MiB" in text
    assert "--poolName" not in text
    assert "examples:" in text


def test_the_native_transport_takes_bounds_and_suites_that_grpcio_lacks() -> None:
    options = serve(
        "--tls-min-version=VersionTLS13",
        "--tls-cipher-suites=TLS_RSA_WITH_AES_128_CBC_SHA256",
    )

    assert options.transport == "native"
    assert options.tls_min_version == "VersionTLS13"


def test_without_the_http2_engine_grpcio_serves_and_says_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("epp.server.options.find_spec", lambda _name: None)

    options = serve()

    assert options.transport == "grpcio"
    assert "no HTTP/2 engine installed, using grpcio" in [n.event for n in options.notices]
    with pytest.raises(ConfigError, match="--transport: needs the package ngh2"):
        serve("--transport=native")


def test_a_connection_always_has_room_for_the_longest_message() -> None:
    assert serve().grpc_max_connection_bytes == 256 * MIB
    assert serve("--max-request-body=300MiB").grpc_max_connection_bytes == 301 * MIB
