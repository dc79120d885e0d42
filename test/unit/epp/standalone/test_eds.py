"""The endpoint file: when it is written, what is in it, and what is left alone."""

import asyncio
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
import yaml
from structlog.testing import capture_logs

from epp.backend.endpoint import Endpoint
from epp.errors import ConfigError
from epp.standalone import eds
from epp.standalone.eds import EdsWriter, render


def endpoint(pod: str, address: str = "10.0.0.1", port: int = 8000, **labels: str) -> Endpoint:
    return Endpoint(namespace="ns", pod_name=pod, address=address, port=port, labels=labels)


def targets(path: Path) -> list[tuple[str, int]]:
    """Addresses in the file, in its order."""
    (assignment,) = yaml.safe_load(path.read_text())["resources"]
    assert assignment["cluster_name"] == "pool"
    sockets = [
        host["endpoint"]["address"]["socket_address"]
        for group in assignment["endpoints"]
        for host in group["lb_endpoints"]
    ]
    return [(socket["address"], socket["port_value"]) for socket in sockets]


class Writes:
    """Counts how often the file was replaced."""

    def __init__(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.seen: list[int] = []
        original = Path.replace

        def replace(draft: Path, target: Path) -> Path:
            result = original(draft, target)
            self.seen.append(len(targets(path)))
            return result

        monkeypatch.setattr(Path, "replace", replace)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "endpoints.yaml"


async def turn() -> None:
    """Let the event loop end its turn."""
    await asyncio.sleep(0)


async def test_without_a_file_an_empty_one_is_written_so_that_envoy_can_start(path: Path) -> None:
    EdsWriter(path)

    assert targets(path) == []


async def test_a_file_of_the_previous_process_stays_until_the_first_endpoint(path: Path) -> None:
    path.write_text(render([endpoint("old", "10.9.9.9")]))

    writer = EdsWriter(path)
    await turn()
    before = targets(path)
    writer.endpoint_added(endpoint("new"))
    after = targets(path)

    assert before == [("10.9.9.9", 8000)]
    assert after == [("10.0.0.1", 8000)]


async def test_an_endpoint_is_in_the_file_when_the_call_returns(path: Path) -> None:
    writer = EdsWriter(path)

    writer.endpoint_added(endpoint("a"))

    assert targets(path) == [("10.0.0.1", 8000)]


async def test_many_changes_of_one_turn_are_two_writes(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = EdsWriter(path)
    writes = Writes(path, monkeypatch)

    for number in range(50):
        writer.endpoint_added(endpoint(f"p{number}", f"10.0.0.{number}"))
    writer.endpoint_removed(endpoint("p0", "10.0.0.0"))
    await turn()

    assert writes.seen == [1, 49]


async def test_one_change_is_one_write(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writer = EdsWriter(path)
    writes = Writes(path, monkeypatch)

    writer.endpoint_added(endpoint("a"))
    await turn()

    assert writes.seen == [1]


async def test_other_labels_alone_write_nothing(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = EdsWriter(path)
    writer.endpoint_added(endpoint("a"))
    await turn()
    writes = Writes(path, monkeypatch)

    writer.endpoint_updated(endpoint("a"), endpoint("a", app="x"))
    await turn()

    assert writes.seen == []


async def test_a_new_address_replaces_the_old_one_before_the_call_returns(path: Path) -> None:
    writer = EdsWriter(path)
    writer.endpoint_added(endpoint("a"))
    await turn()

    writer.endpoint_updated(endpoint("a"), endpoint("a", "10.0.0.2"))

    assert targets(path) == [("10.0.0.2", 8000)]


async def test_a_removed_endpoint_leaves_at_the_end_of_the_turn(path: Path) -> None:
    writer = EdsWriter(path)
    writer.endpoint_added(endpoint("a"))
    writer.endpoint_added(endpoint("b", "10.0.0.2"))
    await turn()

    writer.endpoint_removed(endpoint("a"))
    await turn()

    assert targets(path) == [("10.0.0.2", 8000)]


async def test_the_order_does_not_depend_on_the_order_of_events(path: Path) -> None:
    one = [endpoint("a", "10.0.0.1"), endpoint("b", "10.0.0.2"), endpoint("c", "10.0.0.1", 8001)]

    assert render(one) == render(one[::-1])


async def test_two_pods_of_one_address_are_one_target(path: Path) -> None:
    writer = EdsWriter(path)
    writer.endpoint_added(endpoint("a"))
    writer.endpoint_added(endpoint("b"))
    await turn()

    writer.endpoint_removed(endpoint("a"))
    await turn()

    assert targets(path) == [("10.0.0.1", 8000)]


async def test_ipv6_is_written_without_brackets(path: Path) -> None:
    writer = EdsWriter(path)

    writer.endpoint_added(endpoint("a", "fd00::1"))

    assert targets(path) == [("fd00::1", 8000)]
    assert ip_address(targets(path)[0][0]).version == 6


@pytest.mark.parametrize("address", ["localhost", "model.example", "", '1.2.3.4", x: "'])
async def test_a_name_is_left_out_and_named_in_the_log(path: Path, address: str) -> None:
    writer = EdsWriter(path)
    writer.endpoint_added(endpoint("a"))
    await turn()

    with capture_logs() as logs:
        writer.endpoint_added(endpoint("b", address))
        await turn()

    assert targets(path) == [("10.0.0.1", 8000)]
    assert [(line["endpoint"], line["address"]) for line in logs] == [("ns/b-rank-0", address)]


async def test_an_endpoint_that_becomes_a_name_leaves_the_file(path: Path) -> None:
    writer = EdsWriter(path)
    writer.endpoint_added(endpoint("a"))
    await turn()

    writer.endpoint_updated(endpoint("a"), endpoint("a", "localhost"))
    await turn()

    assert targets(path) == []


async def test_no_draft_is_left_beside_the_file(path: Path) -> None:
    writer = EdsWriter(path)
    writer.endpoint_added(endpoint("a"))
    await turn()

    assert [entry.name for entry in path.parent.iterdir()] == ["endpoints.yaml"]


def unusable(tmp_path: Path, kind: str) -> Path:
    if kind == "binary":
        (tmp_path / "file").write_bytes(b"\xff\xfe\xfa")
    return {
        "missing": tmp_path / "no" / "file",
        "directory": tmp_path,
        "binary": tmp_path / "file",
    }[kind]


@pytest.mark.parametrize("kind", ["missing", "directory", "binary"])
async def test_a_path_that_cannot_be_written_is_refused_at_the_start(
    tmp_path: Path, kind: str
) -> None:
    target = unusable(tmp_path, kind)

    with pytest.raises(ConfigError, match="cannot be written") as caught:
        EdsWriter(target)

    assert (caught.value.source, caught.value.value) == ("--eds-file", str(target))


async def test_a_write_that_fails_is_tried_again(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(eds, "RETRY_SECONDS", 0.01)
    writer = EdsWriter(path)
    original: Any = Path.replace

    def full(_draft: Path, _target: Path) -> Path:
        raise OSError(28, "No space left on device")

    with capture_logs() as logs:
        monkeypatch.setattr(Path, "replace", full)
        writer.endpoint_added(endpoint("a"))
        writer.endpoint_added(endpoint("b", "10.0.0.2"))
        await turn()
        failed = targets(path)
        monkeypatch.setattr(Path, "replace", original)
        async with asyncio.timeout(5):
            while not targets(path):
                await asyncio.sleep(0.001)

    assert failed == []
    assert targets(path) == [("10.0.0.1", 8000), ("10.0.0.2", 8000)]
    assert [line["event"] for line in logs] == [
        "endpoint file cannot be written",
        "endpoint file can be written again",
    ]
