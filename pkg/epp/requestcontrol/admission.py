"""Admission: may this request be shed, and is the pool saturated?

Ours: only negative priorities are shed. Strict v0.3 sheds inside its decision tree instead.
Reference: GAIE v1.0.0 pkg/epp/requestcontrol/admission; message of v1.0.
"""

from typing import Protocol

from epp.backend.endpoint_table import EndpointTable, Mask
from epp.errors import ResourceExhaustedError
from epp.requestcontrol.model_resolution import ResolvedModel
from epp.saturation.detector import SaturationDetector

SATURATED = "rejected-saturated"


class Admission(Protocol):
    """Lets a request pass, or raises."""

    def admit(self, model: ResolvedModel, table: EndpointTable, candidates: Mask) -> None:
        """Return, or raise ResourceExhaustedError."""
        ...


class SaturationAdmission:
    """Sheds negative priorities while no candidate has room."""

    def __init__(self, detector: SaturationDetector) -> None:
        self._detector = detector

    def admit(self, model: ResolvedModel, table: EndpointTable, candidates: Mask) -> None:
        """Raise ResourceExhaustedError for a sheddable request to a saturated pool."""
        if model.priority < 0 and self._detector.is_saturated(table, candidates):
            raise ResourceExhaustedError(
                "system saturated, sheddable request dropped", dropped_reason=SATURATED
            )


class AdmitAll:
    """For profiles that shed by themselves."""

    def admit(self, model: ResolvedModel, table: EndpointTable, candidates: Mask) -> None:
        """Let everything pass."""
