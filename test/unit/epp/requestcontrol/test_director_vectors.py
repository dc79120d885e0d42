"""The published vectors of the decision tree, through the director: strict v0.3, and ours.

Reference: spec of the v0 scheduler, test vectors; where the versions differ ours is the design's.
"""

from collections.abc import Collection, Sequence

import pytest

from epp.backend.endpoint_rows import EndpointRows
from epp.backend.endpoint_table import EndpointTable
from epp.datastore.datastore import Datastore
from epp.errors import ResourceExhaustedError, UnavailableError
from epp.requestcontrol.admission import AdmitAll, SaturationAdmission
from epp.requestcontrol.candidates import Candidates
from epp.requestcontrol.director import Director
from epp.requestcontrol.types import IncomingRequest
from epp.saturation.detector import SaturationDetector
from epp.scheduling.filters.low_latency import LowLatencyFilter, LowLatencySettings
from epp.scheduling.pickers.random_picker import RandomPicker
from epp.scheduling.profile import SchedulerProfile
from epp.scheduling.profilehandlers.single_profile_handler import SingleProfileHandler
from epp.scheduling.scheduler import Scheduler
from epp.testing.builders import P, PodLoad, make_model, make_table
from epp.testing.director_world import RecordingMetrics, no_timer
from epp_api.v1alpha2.inferencemodel_types import Criticality


class Draws:
    """A random source with a fixed affinity draw and a chosen pick."""

    def __init__(self, affinity: float, pick: int) -> None:
        self.affinity = affinity
        self.pick = pick

    def random(self) -> float:
        return self.affinity

    def randrange(self, stop: int, /) -> int:
        return self.pick % stop


class Store(Datastore):
    """A datastore with one model, and one table that never changes."""

    def __init__(self, pods: Sequence[PodLoad], criticality: str, model: str) -> None:
        super().__init__(EndpointRows())
        self._table = make_table(pods)
        declared = make_model("m", model_name=model, criticality=Criticality(criticality))
        self.model_resolve(model, [declared])

    def endpoint_table(self) -> EndpointTable:
        return self._table


def director(store: Store, draws: Draws, *, strict: bool) -> Director:
    tree = LowLatencyFilter(LowLatencySettings(strict_v03=strict))
    profile = SchedulerProfile(name="default", filters=[tree], picker=RandomPicker())
    return Director(
        datastore=store,
        scheduler=Scheduler({"default": profile}, SingleProfileHandler(), no_timer),
        admission=AdmitAll() if strict else SaturationAdmission(SaturationDetector()),
        candidates=Candidates(),
        rows=EndpointRows(),
        metrics=RecordingMetrics(),
        observe=no_timer,
        random=draws,
        strict_v03=strict,
    )


def outcomes(
    pods: Sequence[PodLoad], criticality: str, model: str, draw: float, *, strict: bool
) -> set[str]:
    """Every pick that a draw of the picker can give, or the error."""
    found = set()
    for pick in range(max(1, len(pods))):
        it = director(Store(pods, criticality, model), Draws(draw, pick), strict=strict)
        try:
            routing = it.handle_request(
                IncomingRequest(request_id="r", path="/v1/completions", model=model)
            )
        except ResourceExhaustedError:
            found.add("429")
        except UnavailableError:
            found.add("503")
        else:
            found.add(routing.endpoint.pod_name)
    return found


C, S = "Critical", "Sheddable"


def pod(
    name: str,
    waiting: int,
    kv: float,
    active: Collection[str] = (),
    maximum: int = 0,
    wait: Collection[str] = (),
    *,
    known: bool = True,
) -> PodLoad:
    return P(
        waiting,
        kv,
        active=active,
        waiting_adapters=wait,
        max_adapters=maximum,
        name=name,
        known=known,
    )


VECTORS = [
    pytest.param(
        C, "m", 0.5, [pod("a", 3, 0.2), pod("b", 0, 0.1), pod("c", 10, 0.2)], {"b"}, {"b"}, id="T1"
    ),
    pytest.param(
        C,
        "ad",
        0.5,
        [pod("a", 0, 0.2, "xy", 4), pod("b", 4, 0.1, ["x", "ad"], 4), pod("c", 10, 0.2, "x", 4)],
        {"b"},
        {"b"},
        id="T2",
    ),
    pytest.param(
        C,
        "ad",
        0.9995,
        [pod("a", 0, 0.2, "xy", 4), pod("b", 4, 0.1, ["x", "ad"], 4), pod("c", 10, 0.2, "x", 4)],
        {"a"},
        {"a"},
        id="T2r",
    ),
    pytest.param(
        C,
        "ad",
        0.5,
        [pod("a", 10, 0.2, "xy", 4), pod("b", 200, 0.1, ["x", "ad"], 4), pod("c", 10, 0.2, "x", 4)],
        {"a", "c"},
        {"a", "c"},
        id="T3",
    ),
    pytest.param(
        C,
        "ad",
        0.5,
        [pod("a", 300, 0.2, "xz", 2), pod("b", 129, 0.5, "q", 4), pod("c", 150, 0.1, ["ad"], 4)],
        {"c"},
        {"c"},
        id="T3c",
    ),
    pytest.param(
        S,
        "m",
        0.5,
        [pod("a", 6, 0.2), pod("b", 0, 0.81), pod("c", 7, 0.9)],
        {"429"},
        {"429"},
        id="T4",
    ),
    pytest.param(
        S, "m", 0.5, [pod("a", 5, 0.8), pod("b", 6, 0.1), pod("c", 7, 0.9)], {"a"}, {"a"}, id="T5"
    ),
    pytest.param(
        C, "m", 0.5, [pod("a", 0, 0.9), pod("b", 3, 0.1), pod("c", 10, 0.1)], {"b"}, {"b"}, id="T7"
    ),
    pytest.param(
        C, "m", 0.5, [pod("a", 0, 0.9), pod("b", 4, 0.1), pod("c", 10, 0.1)], {"a"}, {"a"}, id="T7b"
    ),
    pytest.param(C, "m", 0.5, [], {"429"}, {"503"}, id="T8"),
    pytest.param(S, "m", 0.5, [], {"429"}, {"503"}, id="T8n"),
    pytest.param(
        C, "base", 0.5, [pod("a", 0, 0.1, "xy", 2), pod("b", 2, 0.5, "x", 2)], {"b"}, {"b"}, id="T9"
    ),
    pytest.param(
        C,
        "ad",
        0.5,
        [pod("a", 1, 0.1, ["x", "ad2"], 2, ["ad3"]), pod("b", 5, 0.1, "x", 3, "y")],
        {"b"},
        {"b"},
        id="T10",
    ),
    pytest.param(
        S, "m", 0.5, [pod("a", 0, 0.0, known=False), pod("b", 9, 0.5)], {"a"}, {"429"}, id="T11"
    ),
    pytest.param(
        C,
        "zz",
        0.5,
        [pod("a", 0, 0.1, ["ad1"], 2, ["ad1"]), pod("b", 9, 0.1, (), 2)],
        {"a"},
        {"a"},
        id="T12",
    ),
    pytest.param(
        C,
        "ad",
        0.5,
        [pod("a", 128, 0.1, ["ad"], 4), pod("b", 100, 0.1, "x", 4)],
        {"b"},
        {"a"},
        id="U1",
    ),
    pytest.param(S, "m", 0.5, [pod("a", 5, 0.8), pod("b", 0, 0.81)], {"a"}, {"b"}, id="U2"),
    pytest.param(
        C,
        "m",
        0.5,
        [pod("a", 0, 0.30), pod("b", 0, 0.55), pod("c", 0, 0.90)],
        {"a"},
        {"a"},
        id="U3",
    ),
    pytest.param(
        C,
        "ad",
        0.5,
        [pod("a", 0, 0.05, "x", 4), pod("b", 127, 0.95, ["ad"], 4)],
        {"b"},
        {"b"},
        id="U4",
    ),
    pytest.param(
        C, "ad", 0.5, [pod("a", 2, 0.5, "xy", 2), pod("b", 9, 0.1, "xz", 2)], {"a"}, {"a"}, id="U5"
    ),
]


VECTOR = ("criticality", "model", "draw", "pods", "v03", "ours")


@pytest.mark.parametrize(VECTOR, VECTORS)
def test_strict_mode_decides_as_v03(
    criticality: str, model: str, draw: float, pods: list[PodLoad], v03: set[str], ours: set[str]
) -> None:
    assert outcomes(pods, criticality, model, draw, strict=True) == v03


@pytest.mark.parametrize(VECTOR, VECTORS)
def test_ours_decides_as_designed(
    criticality: str, model: str, draw: float, pods: list[PodLoad], v03: set[str], ours: set[str]
) -> None:
    assert outcomes(pods, criticality, model, draw, strict=False) == ours
