"""Which of two objects is the older one: creation instant, then namespace/name."""

from datetime import UTC, datetime

from epp_api.meta import NamespacedName, ObjectMeta

_NO_TIME = datetime.max.replace(tzinfo=UTC)

Age = tuple[datetime, NamespacedName]


def age_key(metadata: ObjectMeta) -> Age:
    """Sort key: creation instant, then namespace/name.

    An object that does not say when it was created, or not in RFC 3339, sorts last: it cannot
    take precedence over one that does.
    """
    return _instant(metadata.creation_timestamp), metadata.key


def _instant(timestamp: str | None) -> datetime:
    if timestamp is None:
        return _NO_TIME
    try:
        parsed = datetime.fromisoformat(timestamp.upper())
    except ValueError:
        return _NO_TIME
    return parsed if parsed.tzinfo is not None else parsed.replace(tzinfo=UTC)
