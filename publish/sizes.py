"""Numbers of bytes for people."""


def readable(size: float) -> str:
    """`1.4 MB`, in powers of 1000 as networks and shops count."""
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"
