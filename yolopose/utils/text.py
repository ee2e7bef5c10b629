"""Words for people: durations, sizes, aligned columns."""

import re

ANSI = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")


def gigabytes(size: float) -> str:
    """Bytes for people: ``19.3 GB``, ``1.1 MB``, ``12 bytes``."""
    if size < 1e5:
        return f"{size:.0f} bytes"
    return f"{size / 1e9:.1f} GB" if size >= 1e8 else f"{size / 1e6:.1f} MB"


def duration(seconds: float) -> str:
    """``42 s``, ``3 min 5 s`` or ``2 h 10 min``."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    parts = [(hours, "h"), (minutes, "min")] if hours else [(minutes, "min"), (seconds, "s")]
    return " ".join(f"{number} {unit}" for number, unit in parts if number) or "0 s"


def align(rows: list[list[str]], indent: str = "  ", numbers: bool = True) -> str:
    """Rows as columns of text: the first column to the left, the others to the right where they are ``numbers``."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [[cell.rjust(width) if column and numbers else cell.ljust(width)
              for column, (cell, width) in enumerate(zip(row, widths, strict=True))] for row in rows]
    return "\n".join(indent + "  ".join(line).rstrip() for line in lines)
