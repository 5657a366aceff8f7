"""Pure: durations and sizes as people read them."""


def clock(seconds: float) -> str:
    """A duration as people write it: ``1:02:03`` or ``2:03``."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def size_text(size: int) -> str:
    """Bytes as people read them; 1 MB is 1,048,576 bytes."""
    if size < 2**20:
        return f"{max(1, round(size / 2**10)):,} kB"
    return f"{size / 2**20:,.1f} MB" if size < 2**30 else f"{size / 2**30:,.2f} GB"
