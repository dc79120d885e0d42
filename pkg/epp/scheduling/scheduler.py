"""Scheduler: runs profiles as the profile handler says, and returns the decision.

Pure: (table, candidates, request, random source) in, ``Decision`` out.
"""

from collections.abc import Mapping

from epp.backend.endpoint_table import EndpointTable, Mask
from epp.scheduling.framework import Cycle, PluginObserver, ProfileHandler, RandomSource
from epp.scheduling.profile import SchedulerProfile
from epp.scheduling.types import Decision, InferenceRequest, ProfileRunResult

MAX_PROFILE_RUNS = 16
"""More runs than any handler needs: a handler that never ends is a defect, not a hang."""


class Scheduler:
    """Holds no state between requests.

    Args:
        profiles: By name.
        handler: Says which profile runs.
        observe: Wraps every plugin call; owns the clock.
    """

    def __init__(
        self,
        profiles: Mapping[str, SchedulerProfile],
        handler: ProfileHandler,
        observe: PluginObserver,
    ) -> None:
        self._profiles = dict(profiles)
        self._names = tuple(profiles)
        self._handler = handler
        self._observe = observe

    def schedule(
        self,
        request: InferenceRequest,
        table: EndpointTable,
        candidates: Mask,
        random: RandomSource,
    ) -> Decision:
        """Decide. The decision has no picks when filters left nobody.

        Raises:
            LookupError: The handler names a profile that does not exist, or that did not run.
        """
        cycle = Cycle(request, random)
        results: dict[str, ProfileRunResult] = {}
        for _ in range(MAX_PROFILE_RUNS):
            with self._observe("ProfilePicker", self._handler.typed_name):
                name = self._handler.next_profile(cycle, self._names, results)
                profile = None if name is None else self._profiles[name]
            if name is None or profile is None:
                break
            results[name] = profile.run(cycle, table, candidates, self._observe)
        with self._observe("ProcessProfilesResults", self._handler.typed_name):
            primary = self._handler.primary(results)
        return Decision(
            request=request,
            table=table,
            candidates=candidates,
            profiles=tuple(results.values()),
            primary=results[primary].profile,
        )
