"""Go's durations, Kubernetes quantities, booleans, addresses."""

from collections.abc import Callable

import pytest

from epp.server import quantities as q


@pytest.mark.parametrize(
    "text, want",
    [
        pytest.param("50ms", 0.05, id="milliseconds"),
        pytest.param("1m30s", 90.0, id="two-parts"),
        pytest.param("1.5h", 5400.0, id="fraction"),
        pytest.param(".5s", 0.5, id="no-leading-digit"),
        pytest.param("300us", 0.0003, id="microseconds"),
        pytest.param("300µs", 0.0003, id="micro-sign"),
        pytest.param("0", 0.0, id="zero-without-unit"),
        pytest.param("-2s", -2.0, id="negative"),
        pytest.param("+2s", 2.0, id="plus-sign"),
    ],
)
def test_durations(text: str, want: float) -> None:
    assert q.parse_duration(text) == pytest.approx(want, abs=0)


@pytest.mark.parametrize("text", ["", "5", "s", "5 s", "5s ", "5sx", "1d", "1e3s", "--5s", "5S"])
def test_text_that_is_no_duration(text: str) -> None:
    with pytest.raises(ValueError, match="not a duration"):
        q.parse_duration(text)


@pytest.mark.parametrize(
    "text, want",
    [
        pytest.param("0", 0, id="zero"),
        pytest.param("4096", 4096, id="bare"),
        pytest.param("16MiB", 16 * 2**20, id="binary-with-b"),
        pytest.param("16Mi", 16 * 2**20, id="binary"),
        pytest.param("25MB", 25_000_000, id="decimal-with-b"),
        pytest.param("25Mb", 25_000_000, id="small-b"),
        pytest.param("1k", 1000, id="kilo"),
        pytest.param("1.5Ki", 1536, id="fraction"),
        pytest.param("0.3", 1, id="rounded-up"),
        pytest.param("1e6", 1_000_000, id="exponent"),
        pytest.param("9007199254740993", 9007199254740993, id="beyond-a-double"),
    ],
)
def test_quantities(text: str, want: int) -> None:
    assert q.parse_bytes(text) == want


@pytest.mark.parametrize("text", ["", "B", "x", "5x", "5 Mi", "MiB", "5MiBB", "-1", "1e", "٣"])
def test_text_that_is_no_quantity(text: str) -> None:
    with pytest.raises(ValueError, match=r"not a number of bytes|negative"):
        q.parse_bytes(text)


@pytest.mark.parametrize(
    "text, want",
    [
        ("10.0.0.5:8000", ("10.0.0.5", 8000)),
        ("[fd00::5]:8000", ("fd00::5", 8000)),
        ("[FD00:0::5]:65535", ("fd00::5", 65535)),
    ],
)
def test_endpoints(text: str, want: tuple[str, int]) -> None:
    assert q.parse_host_port(text) == want


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("localhost:80", id="host-name"),
        pytest.param("10.0.0.5", id="no-port"),
        pytest.param("10.0.0.5:", id="empty-port"),
        pytest.param("10.0.0.5:0", id="port-zero"),
        pytest.param("10.0.0.5:65536", id="port-too-large"),
        pytest.param("10.0.0.5:+80", id="signed-port"),
        pytest.param("fd00::5:8000", id="ipv6-without-brackets"),
        pytest.param("[10.0.0.5]:80", id="ipv4-in-brackets"),
        pytest.param("10.0.0.256:80", id="not-an-address"),
        pytest.param("", id="empty"),
    ],
)
def test_text_that_is_no_endpoint(text: str) -> None:
    with pytest.raises(ValueError, match="IP:PORT|not a port|needs a port"):
        q.parse_host_port(text)


def test_an_ipv6_endpoint_prints_with_brackets() -> None:
    assert str(q.HostPort("fd00::5", 80)) == "[fd00::5]:80"


@pytest.mark.parametrize(
    "parse, text",
    [
        pytest.param(q.parse_bool, "yes", id="bool-word"),
        pytest.param(q.parse_bool, "", id="bool-empty"),
        pytest.param(q.parse_int, "1.0", id="int-fraction"),
        pytest.param(q.parse_int, "9" * 5000, id="int-endless"),
        pytest.param(q.parse_positive_int, "0", id="int-zero"),
        pytest.param(q.parse_float, "nan", id="float-nan"),
        pytest.param(q.parse_float, "x", id="float-word"),
        pytest.param(q.parse_port, "-1", id="port-negative"),
        pytest.param(q.parse_port, "65536", id="port-too-large"),
        pytest.param(q.parse_ip, "localhost", id="ip-name"),
        pytest.param(q.parse_positive_duration, "0s", id="duration-zero"),
        pytest.param(q.parse_duration_or_zero, "-1s", id="duration-negative"),
        pytest.param(q.parse_duration, "9" * 400 + "h", id="duration-endless"),
    ],
)
def test_bad_values_are_refused(parse: Callable[[str], object], text: str) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        parse(text)
