"""Timing of an election: contradictions are refused before they make two leaders."""

from typing import Any

import pytest

from epp.kube.lease import LeaseSettings


@pytest.mark.parametrize(
    ("values", "names"),
    [
        pytest.param({"lease_seconds": 0}, "lease_seconds", id="no-lease"),
        pytest.param({"lease_seconds": 2**31}, "lease_seconds", id="beyond-int32"),
        pytest.param(
            {"renew_deadline_seconds": 15.0}, "renew_deadline_seconds 15.0", id="deadline"
        ),
        pytest.param({"retry_seconds": 10.0}, "retry_seconds 10.0", id="retry-too-long"),
        pytest.param({"retry_seconds": 0.0}, "retry_seconds 0.0", id="retry-nothing"),
        pytest.param({"jitter_ratio": 1.0}, "jitter_ratio", id="jitter"),
    ],
)
def test_contradictory_settings_are_refused_by_name(values: dict[str, Any], names: str) -> None:
    with pytest.raises(ValueError, match=names):
        LeaseSettings(**values)
