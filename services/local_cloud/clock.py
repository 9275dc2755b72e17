"""Wall time as data: ISO 8601 in UTC."""

from datetime import UTC, datetime


def iso(moment: datetime) -> str:
    """`2026-01-31T12:00:00.123Z`"""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def now_iso() -> str:
    """This moment, as `iso` words it."""
    return iso(datetime.now(UTC))
