"""Moments as the tables store them."""

from datetime import UTC, datetime, timedelta

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def micros(moment: datetime) -> int:
    """Microseconds since 1970."""
    return round((moment - _EPOCH) / timedelta(microseconds=1))
