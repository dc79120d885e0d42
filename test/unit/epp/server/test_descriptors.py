import resource

import pytest

from epp.server.descriptors import MOST, connections_for, raise_descriptor_limit

UNLIMITED = resource.RLIM_INFINITY


@pytest.fixture
def limits(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """The limits of this process, in a list of one; nothing is really changed."""
    present = [(1024, 20_000)]
    monkeypatch.setattr(resource, "getrlimit", lambda _what: present[0])
    monkeypatch.setattr(resource, "setrlimit", lambda _what, now: present.__setitem__(0, now))
    return present


@pytest.mark.parametrize(
    ("before", "after", "usable"),
    [
        pytest.param((1024, 20_000), (20_000, 20_000), 20_000, id="up-to-the-hard-limit"),
        pytest.param((1024, UNLIMITED), (MOST, UNLIMITED), MOST, id="no-hard-limit"),
        pytest.param((1024, 1 << 30), (MOST, 1 << 30), MOST, id="an-absurd-hard-limit"),
        pytest.param((4096, 4096), (4096, 4096), 4096, id="nothing-to-raise"),
        pytest.param((1 << 30, 1 << 30), (1 << 30, 1 << 30), 1 << 30, id="never-lowered"),
        pytest.param((UNLIMITED, UNLIMITED), (UNLIMITED, UNLIMITED), MOST, id="unlimited"),
    ],
)
def test_the_soft_limit_is_raised(
    limits: list[tuple[int, int]],
    before: tuple[int, int],
    after: tuple[int, int],
    usable: int,
) -> None:
    limits[0] = before

    assert raise_descriptor_limit() == usable
    assert limits[0] == after


@pytest.mark.parametrize("refusal", [OSError("no"), ValueError("no")])
def test_a_system_that_refuses_keeps_what_it_has(
    limits: list[tuple[int, int]], monkeypatch: pytest.MonkeyPatch, refusal: Exception
) -> None:
    def refuse(*_: object) -> None:
        raise refusal

    monkeypatch.setattr(resource, "setrlimit", refuse)

    assert raise_descriptor_limit() == 1024
    assert limits == [(1024, 20_000)]


@pytest.mark.parametrize(
    ("descriptors", "wanted", "connections"),
    [
        pytest.param(20_000, 10_000, 10_000, id="enough"),
        pytest.param(1_024, 10_000, 512, id="some-are-left-to-others"),
        pytest.param(100, 10_000, 64, id="never-none"),
    ],
)
def test_connections_leave_descriptors_to_others(
    descriptors: int, wanted: int, connections: int
) -> None:
    assert connections_for(descriptors, wanted) == connections
