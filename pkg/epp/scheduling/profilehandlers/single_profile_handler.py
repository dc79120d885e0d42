"""single-profile-handler: runs the one profile there is, once."""

from collections.abc import Mapping, Sequence

from epp.scheduling.framework import Cycle, TypedName
from epp.scheduling.types import ProfileRunResult

SINGLE_PROFILE_HANDLER_TYPE = "single-profile-handler"


class SingleProfileHandler:
    """For configurations with one profile."""

    def __init__(self, name: str = SINGLE_PROFILE_HANDLER_TYPE) -> None:
        self.typed_name = TypedName(SINGLE_PROFILE_HANDLER_TYPE, name)

    def next_profile(
        self, _cycle: Cycle, profiles: Sequence[str], results: Mapping[str, ProfileRunResult]
    ) -> str | None:
        """The profile, then none."""
        return None if results else profiles[0]

    def primary(self, results: Mapping[str, ProfileRunResult]) -> str:
        """The profile that ran."""
        return next(iter(results))
