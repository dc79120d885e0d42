"""The values of scheduling: a request going in, a decision with its whole breakdown coming out.

They are made for every request: msgspec's structs cost a tenth of a frozen dataclass.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from msgspec import Struct

from epp.backend.endpoint import Endpoint
from epp.backend.endpoint_table import EndpointTable, Floats, Mask

_EMPTY: Mapping[str, Any] = MappingProxyType({})


class InferenceRequest(Struct, frozen=True, kw_only=True):
    """A request as filters and scorers see it.

    Attributes:
        request_id: The ``x-request-id`` of the request; never empty.
        model: Name in the client's request; empty for a request without a body.
        target_model: Name after split or rewrite: the LoRA key.
        priority: Higher is more important; negative may be shed.
        critical: The InferenceModel says Critical (v0.3 strict mode looks at nothing else).
        size_bytes: Length of the request body.
        headers: Lower-case names; last value wins. Never send them back from here.
        payload: The parsed JSON body; empty for a request without one.
        objective: Name of the InferenceObjective that gave the priority; empty when none did.
        rewrite: What gave the target model in place of the client's name, for humans: a rule of an
            InferenceModelRewrite, or a header; empty when neither did.
    """

    request_id: str
    model: str = ""
    target_model: str = ""
    priority: int = 0
    critical: bool = False
    size_bytes: int = 0
    headers: Mapping[str, str] = _EMPTY
    payload: Mapping[str, Any] = _EMPTY
    objective: str = ""
    rewrite: str = ""


class FilterStep(Struct, frozen=True):
    """What one filter, or one node of a filter tree, did.

    Attributes:
        name: Instance name, or the node's name in its tree.
        before: Candidates it was given.
        after: Candidates it kept; all false means that it failed.
        note: What decided, for humans, e.g. ``waiting <= 128`` or ``affinity (draw 0.41 < 0.999)``.
    """

    name: str
    before: Mask
    after: Mask
    note: str = ""


class ScorerStep(Struct, frozen=True):
    """What one scorer said. ``raw`` is clamped to [0, 1] and has a value per row of the table."""

    name: str
    weight: float
    raw: Floats


class PluginFailure(Struct, frozen=True, kw_only=True):
    """A plugin that raised, or answered what its contract forbids, and was done without.

    Attributes:
        extension_point: Where it was called: ``Filter``, ``Scorer``, ``Picker``.
        type: Type of the plugin.
        name: Instance name, or the node's name in its tree.
        error: What it raised, shortened.
        timed: The observer's timer saw the exception and has counted it.
    """

    extension_point: str
    type: str
    name: str
    error: str
    timed: bool = True


MAX_ERROR_TEXT = 200


def error_text(error: Exception) -> str:
    """Type and text of an exception, short enough to be kept with every decision."""
    return f"{type(error).__name__}: {error}"[:MAX_ERROR_TEXT]


class ProfileRunResult(Struct, frozen=True, kw_only=True):
    """One profile's run.

    Attributes:
        profile: Its name.
        filters: Every step in order, tree nodes included.
        scorers: Every scorer in order.
        totals: Weighted sum per row (NaN for rows that were filtered out); empty without scorers.
        picker: Name of the picker.
        picks: Rows of the table, best first; empty when the filters left nothing.
        failures: Plugins that failed and were done without.
    """

    profile: str
    filters: tuple[FilterStep, ...]
    scorers: tuple[ScorerStep, ...]
    totals: Floats
    picker: str
    picks: tuple[int, ...]
    failures: tuple[PluginFailure, ...] = ()


class Decision(Struct, frozen=True, kw_only=True):
    """Why this pod: the request, the table it was decided on, and each step.

    Attributes:
        request: What was asked.
        table: The snapshot; ages in it tell how fresh the data was.
        candidates: Rows that took part (readiness and subset hint applied).
        profiles: Results by order of running; the last named ``primary`` wins.
        primary: Name of the profile whose picks are the answer.
    """

    request: InferenceRequest
    table: EndpointTable
    candidates: Mask
    profiles: tuple[ProfileRunResult, ...]
    primary: str

    @property
    def result(self) -> ProfileRunResult:
        """The primary profile's result."""
        for run in self.profiles:
            if run.profile == self.primary:
                return run
        raise LookupError(f"no result of profile {self.primary!r}")

    @property
    def endpoints(self) -> tuple[Endpoint, ...]:
        """The picks, best first."""
        endpoints = self.table.endpoints
        return tuple([endpoints[row] for row in self.result.picks])
