"""What a Lease says: who holds it, how long, since when. Values only, no I/O, no clock.

Lenient where the field may be garbage (a hand-edited Lease must not stop an election), strict
where we write. Other fields of the object are kept as they came.
Reference: client-go tools/leaderelection/resourcelock/leaselock.go (the record).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from epp.kube.errors import ApiError
from epp.kube.resource import LEASES

Lease = Mapping[str, Any]
"""The object as the API server sent it."""

MAX_INT32 = 2**31 - 1
"""leaseTransitions and leaseDurationSeconds are int32 in the API."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseSettings:
    """Timing of an election.

    Attributes:
        lease_seconds: How long others must see the record unchanged before they may take it.
        renew_deadline_seconds: A leader stops leading when its last successful renewal was sent
            this long ago. The difference to ``lease_seconds`` is what protects from two leaders.
        retry_seconds: Longest pause between two tries, also between two renewals.
        jitter_ratio: Share of the pause that is drawn at random, so that replicas spread out.

    Raises:
        ValueError: The values contradict each other.
    """

    lease_seconds: int = 15
    renew_deadline_seconds: float = 10.0
    retry_seconds: float = 2.0
    jitter_ratio: float = 0.2

    def __post_init__(self) -> None:
        if not 0 < self.lease_seconds <= MAX_INT32:
            raise ValueError(f"lease_seconds must be a positive int32: {self.lease_seconds}")
        if not self.renew_deadline_seconds < self.lease_seconds:
            raise ValueError(
                f"renew_deadline_seconds {self.renew_deadline_seconds} must be below"
                f" lease_seconds {self.lease_seconds}"
            )
        if not 0 < self.retry_seconds < self.renew_deadline_seconds:
            raise ValueError(
                f"retry_seconds {self.retry_seconds} must be above 0 and below"
                f" renew_deadline_seconds {self.renew_deadline_seconds}"
            )
        if not 0.0 <= self.jitter_ratio < 1.0:
            raise ValueError(f"jitter_ratio must be in [0, 1): {self.jitter_ratio}")


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseRecord:
    """The election part of a Lease.

    Attributes:
        holder: Identity of the holder; empty when the Lease is free.
        duration_seconds: How long the record stands unchanged; 0 when it does not say.
        acquire_time: MicroTime at which the holder got it.
        renew_time: MicroTime of the last renewal. Compared with itself only, never with a clock.
        transitions: How often the holder has changed.
    """

    holder: str = ""
    duration_seconds: int = 0
    acquire_time: str = ""
    renew_time: str = ""
    transitions: int = 0


NO_RECORD = LeaseRecord()
"""What is known before a Lease was ever seen."""


def record_of(lease: Lease) -> LeaseRecord:
    """Read the record of a Lease; a field of a wrong type reads as absent."""
    spec = lease.get("spec")
    if not isinstance(spec, Mapping):
        return NO_RECORD
    return LeaseRecord(
        holder=_text(spec.get("holderIdentity")),
        duration_seconds=_count(spec.get("leaseDurationSeconds")),
        acquire_time=_text(spec.get("acquireTime")),
        renew_time=_text(spec.get("renewTime")),
        transitions=_count(spec.get("leaseTransitions")),
    )


def with_record(lease: Lease, record: LeaseRecord) -> Lease:
    """The Lease with another record and everything else as it was."""
    spec = lease.get("spec")
    kept = dict(spec) if isinstance(spec, Mapping) else {}
    return {
        **lease,
        "spec": {
            **kept,
            "holderIdentity": record.holder,
            "leaseDurationSeconds": record.duration_seconds,
            "acquireTime": record.acquire_time,
            "renewTime": record.renew_time,
            "leaseTransitions": record.transitions,
        },
    }


def empty_lease(namespace: str, name: str) -> Lease:
    """A Lease to be created."""
    return {
        "apiVersion": LEASES.api_version,
        "kind": LEASES.kind,
        "metadata": {"namespace": namespace, "name": name},
    }


def decode_lease(payload: bytes, what: str) -> Lease:
    """Decode an answer of the API server.

    Raises:
        ApiError: It is not a stored object, e.g. the error page of a proxy.
    """
    try:
        lease = orjson.loads(payload)
    except orjson.JSONDecodeError as exc:
        raise ApiError(f"{what}: the answer is not JSON: {exc}") from exc
    metadata = lease.get("metadata") if isinstance(lease, dict) else None
    if not isinstance(metadata, dict) or not metadata.get("resourceVersion"):
        raise ApiError(f"{what}: the answer is not an object with a resourceVersion")
    stored: Lease = lease
    return stored


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _count(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        return 0
    return min(max(value, 0), MAX_INT32)
