"""No flag is ignored in silence."""

from pathlib import Path

import pytest

from epp.server.options import Options, parse

SUITE = "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256"
PLAIN = "--secure-serving=false"
NO_TLS = "--secure-serving=false: the gRPC port has no TLS"


def serve(*argv: str) -> Options:
    return parse(["--endpoint=10.0.0.1:80", *argv], {})


def told(options: Options) -> list[tuple[object, object]]:
    return [
        (notice.fields["flag"], notice.fields["reason"])
        for notice in options.notices
        if notice.event == "flag has no effect"
    ]


@pytest.mark.parametrize(
    "argv, flag, reason",
    [
        pytest.param(
            ["--enable-cert-reload"], "--enable-cert-reload",
            "nothing to reload without --cert-path or --grpc-client-ca-file", id="reload-of-nothing",
        ),
        pytest.param([PLAIN, "--cert-path=/none"], "--cert-path", NO_TLS, id="certificate"),
        pytest.param([PLAIN, "--enable-cert-reload"], "--enable-cert-reload", NO_TLS, id="reload"),
        pytest.param(
            [PLAIN, "--tls-min-version=VersionTLS13"], "--tls-min-version", NO_TLS, id="version"
        ),
        pytest.param([PLAIN, f"--tls-cipher-suites={SUITE}"], "--tls-cipher-suites", NO_TLS, id="suites"),
        pytest.param(
            ["--leader-elect-lease-duration=20s"], "--leader-elect-lease-duration",
            "there is no --ha-enable-leader-election", id="lease",
        ),
        pytest.param(
            ["--leader-elect-renew-deadline=9s"], "--leader-elect-renew-deadline",
            "there is no --ha-enable-leader-election", id="renew",
        ),
        pytest.param(
            ["--leader-elect-retry-period=1s"], "--leader-elect-retry-period",
            "there is no --ha-enable-leader-election", id="retry",
        ),
        pytest.param(
            ["--transport=grpcio", "--grpc-max-connection-memory=1GiB"],
            "--grpc-max-connection-memory", "--transport=grpcio has no such thing", id="memory",
        ),
        pytest.param(
            ["--transport=grpcio", "--enable-grpc-stream-metrics"],
            "--enable-grpc-stream-metrics", "--transport=grpcio has no such thing", id="metrics",
        ),
    ],
)  # fmt: skip
def test_a_flag_without_effect_is_named_with_the_reason(
    argv: list[str], flag: str, reason: str
) -> None:
    assert told(serve(*argv)) == [(flag, reason)]


@pytest.mark.parametrize(
    "argv",
    [
        pytest.param([], id="nothing-given"),
        pytest.param([PLAIN], id="plain-text"),
        pytest.param([PLAIN, "--tls-min-version=VersionTLS12"], id="default-version"),
        pytest.param([PLAIN, "--enable-cert-reload=false"], id="reload-off"),
        pytest.param(["--enable-cert-reload=false"], id="reload-off-with-tls"),
        pytest.param(["--cert-path=/c", "--enable-cert-reload"], id="reload-of-files"),
        pytest.param(["--tls-min-version=VersionTLS13"], id="version"),
        pytest.param(["--transport=native", "--enable-grpc-stream-metrics"], id="metrics"),
        pytest.param(["--transport=grpcio", "--enable-grpc-stream-metrics=false"], id="off"),
        pytest.param(["--transport=grpcio"], id="grpcio"),
    ],
)
def test_what_has_an_effect_or_changes_nothing_is_not_told(argv: list[str]) -> None:
    assert told(serve(*argv)) == []


def test_with_an_election_its_timings_are_not_told() -> None:
    argv = ["--pool-name=p", "--ha-enable-leader-election", "--leader-elect-retry-period=1s"]

    assert told(parse(argv, {}, service_account=Path("/none"))) == []
