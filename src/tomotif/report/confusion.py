"""Confusion matrices: what is there against what it was called."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tomotif.core import BACKGROUND
from tomotif.report.blocks import as_list, as_number
from tomotif.report.palette import Palette, Style, natural

SPECIAL = {"false": "no particle there", "missed": "not picked", "unclassified": "picked"}
ROOMY = 9  # columns up to which they are as wide as their names


@dataclass(frozen=True)
class Cell:
    """One cell of the confusion matrix."""

    count: int
    fraction: float
    agrees: bool


@dataclass(frozen=True)
class Confusion:
    """The confusion matrix: names of the columns, rows with their name, style and cells."""

    columns: list[tuple[str, Style | None]]
    rows: list[tuple[str, Style | None, list[Cell]]]

    @property
    def wide(self) -> bool:
        """Whether it has so many columns that they must be narrow."""
        return len(self.columns) > ROOMY


def confusion_matrix(table: Mapping[str, Any], classes: Palette) -> Confusion | None:
    """A confusion matrix with fractions of each row's sum, None when it is missing or its shape is wrong.

    Parameters
    ----------
    table
        ``true`` (names of the c rows), ``predicted`` (names of the k columns) and ``counts`` (c lists of k).
    classes
        Styles of the names.
    """
    true, predicted = ([str(name) for name in as_list(table.get(key))] for key in ("true", "predicted"))
    counts = [[int(as_number(n) or 0) for n in as_list(row)] for row in as_list(table.get("counts"))]
    if not true or len(counts) != len(true) or any(len(row) != len(predicted) for row in counts):
        return None

    def named(name: str) -> tuple[str, Style | None]:
        return (SPECIAL[name], None) if name in SPECIAL else (classes[name].label, classes[name])

    rows = []
    for name, row in zip(true, counts, strict=True):
        whole = max(sum(row), 1)
        cells = [Cell(n, n / whole, name == other) for n, other in zip(row, predicted, strict=True)]
        rows.append((*named(name), cells))
    return Confusion([named(name) for name in predicted], rows)


def confusion_of(true: NDArray[np.object_], named: NDArray[np.object_], classes: Palette) -> Confusion | None:
    """The confusion matrix of n particles, None when there are none.

    Parameters
    ----------
    true
        Class of each particle, shape (n,). Every one that occurs is a row.
    named
        What each was called, shape (n,). Every name that occurs in either is a column, so that the diagonal is whole.
    classes
        Styles of the names.
    """

    def order(name: str) -> tuple[bool, list[tuple[str, int]]]:
        return name == BACKGROUND, natural(name)

    rows = sorted(set(true), key=order)
    columns = sorted({*true, *named}, key=order)
    counts = [[int(((true == row) & (named == column)).sum()) for column in columns] for row in rows]
    return confusion_matrix({"true": rows, "predicted": columns, "counts": counts}, classes)
