"""Average: Subtomograms of a class → one map, its two half-maps, their agreement, and poses.

Poses are either given (``given``) or found without a reference (``blind``): expectation maximisation from random
orientations at low resolution (``starts``), then two half-sets refined apart (``halves``). ``checks`` asks whether what
came out is more than noise aligned to itself, and one structure.

The science lies in :mod:`tomotif.ops.align`, :mod:`tomotif.ops.expectation`, :mod:`tomotif.ops.average` and
:mod:`tomotif.ops.fsc`. Not here: comparing a map with known structures (the task ``fit``).
"""

from tomotif.tasks.average.blind import align
from tomotif.tasks.average.checks import Checks
from tomotif.tasks.average.classes import AlignedClasses, align_classes
from tomotif.tasks.average.given import (
    Averages,
    ClassAverage,
    SkippedClass,
    average,
    average_class,
    group_rows,
    offsets,
    split_halves,
)
from tomotif.tasks.average.halves import Aligned
from tomotif.tasks.average.settings import AlignSettings, AverageSettings

__all__ = [
    "AlignSettings",
    "Aligned",
    "AlignedClasses",
    "AverageSettings",
    "Averages",
    "Checks",
    "ClassAverage",
    "SkippedClass",
    "align",
    "align_classes",
    "average",
    "average_class",
    "group_rows",
    "offsets",
    "split_halves",
]
