"""Rows of figures, printed as a table with medians and ratios."""

import statistics
from collections.abc import Sequence
from typing import NamedTuple


class Row(NamedTuple):
    """One figure: what was measured, of how many, the value, the bare thing beside it, their ratio, the target."""

    figure: str
    runs: int
    ours: str
    bare: str
    ratio: str
    target: str


HEADER = Row("figure", 0, "ours", "bare", "ratio", "target")


def percentile(values: Sequence[float], share: float) -> float:
    """The value below which `share` (0-1) of the values lie."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def beside(figure: str, unit: str, ours: Sequence[float], bare: Sequence[float], share: float, target: str) -> Row:
    """Our percentile beside the bare thing's, and their ratio."""
    mine, theirs = percentile(ours, share), percentile(bare, share)
    return Row(figure, len(ours), f"{mine:.2f} {unit}", f"{theirs:.2f} {unit}", f"{mine / theirs:.2f}x", target)


def alone(figure: str, unit: str, values: Sequence[float], target: str) -> Row:
    """A median with nothing beside it."""
    return Row(figure, len(values), f"{statistics.median(values):.2f} {unit}", "", "", target)


def show(rows: Sequence[Row]) -> str:
    """The table as text."""
    cells = [[str(cell) if cell != 0 else "runs" for cell in row] for row in (HEADER, *rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(HEADER))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in cells]
    return "\n".join([lines[0], "-" * len(lines[0]), *lines[1:]])
