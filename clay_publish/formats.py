"""Numbers as people read them."""

from collections.abc import Callable, Sequence

_BYTES = ("bytes", "kB", "MB", "GB", "TB", "PB")


def number(value: int) -> str:
    """`12,345`."""
    return f"{value:,}"


def counted(value: int, noun: str) -> str:
    """`1 file`, `12,345 files`."""
    return f"{value:,} {noun}" if value == 1 else f"{value:,} {noun}s"


def figure(value: float) -> str:
    """Three digits that matter."""
    return f"{value:.3g}" if 1e-3 <= abs(value) < 1e4 or value == 0 else f"{value:.2e}"


def percent(share: float) -> str:
    """`12.3 %`; never 100 % of what is not whole, never 0 % of what is not empty."""
    if 0.9995 <= share < 1:
        return "over 99.9 %"
    if 0 < share < 0.0005:
        return "under 0.1 %"
    return f"{share * 100:.1f}".removesuffix(".0") + " %"


def meters(value: float) -> str:
    """`960 m`, `1.28 km`, `14,660 km`."""
    if value >= 1e6:
        return f"{value / 1000:,.0f} km"
    return f"{value / 1000:.4g} km" if value >= 1000 else f"{value:.4g} m"


def crossing(bbox: Sequence[float]) -> str:
    """`crosses the antimeridian: from 170° eastward to -170°, 20° wide`; nothing where west <= east."""
    west, _, east, _ = bbox
    if west <= east:
        return ""
    return f"crosses the antimeridian: from {west:g}° eastward to {east:g}°, {east - west + 360:g}° wide"


def duration(seconds: float) -> str:
    """`42 s`, `3 min 5 s`, `2 h 10 min`."""
    whole = round(seconds)
    if whole < 60:
        return f"{seconds:.3g} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600:,} h {whole % 3600 // 60} min"


def size(value: float) -> str:
    """`12.3 MB`, in powers of a thousand."""
    amount = float(value)
    for unit in _BYTES:
        if amount < 1000 or unit == _BYTES[-1]:
            return f"{amount:.3g} {unit}" if amount < 1000 else f"{amount:,.0f} {unit}"
        amount /= 1000
    raise AssertionError


FORMATS: dict[str, Callable[..., str]] = {
    "number": number,
    "figure": figure,
    "percent": percent,
    "meters": meters,
    "bytes": size,
}
"""By the names that the templates of documents know them by."""
