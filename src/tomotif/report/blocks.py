"""What a section of the page is made of."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from tomotif.core import Particles
from tomotif.report.palette import Palette
from tomotif.report.runs import Run

Projection = Literal["t-sne", "umap"]
Result = TypeVar("Result")


@dataclass(frozen=True)
class Block:
    """A part of a section: ``kind`` names the template's macro, ``data`` is what that shows."""

    kind: str
    title: str
    data: Any
    caption: str = ""


@dataclass
class Section:
    """What the page says of one run.

    Attributes
    ----------
    run
        The run.
    title
        Heading.
    lead
        A sentence or two below it.
    finding
        The sentence that goes into the page's summary.
    tiles
        Label and text of numbers for the page's head.
    blocks
        The parts, in order.
    notes
        What could not be shown, and why.
    projection
        How its maps of features are drawn.
    """

    run: Run
    title: str = ""
    lead: str = ""
    finding: str = ""
    tiles: list[tuple[str, str]] = field(default_factory=list)
    blocks: list[Block] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    projection: Projection = "t-sne"

    def add(self, kind: str, title: str, data: Any, caption: str = "") -> None:
        """Append a block, unless there is nothing in it."""
        if data:
            self.blocks.append(Block(kind, title, data, caption))

    def attempt(self, make: Callable[..., Result], *arguments: Any) -> Result | None:
        """What ``make(*arguments)`` gives, or None and a note when files of the run are missing or damaged."""
        try:
            return make(*arguments)
        except (ValueError, OSError) as error:  # a TomotifError is a ValueError; so is a word where a number belongs
            told = " ".join(str(error).split())
            if told not in self.notes:
                self.notes.append(told)
            return None


@dataclass(frozen=True)
class Bar:
    """A horizontal bar; ``fraction`` of the longest."""

    label: str
    text: str
    fraction: float
    colour: str


def count_bars(names: NDArray[np.object_], palette: Palette) -> list[Bar]:
    """How many particles bear each name, the most first."""
    sizes = {name: int((names == name).sum()) for name in palette.styles}
    largest = max(sizes.values(), default=0)
    return [
        Bar(
            palette[name].label,
            f"{sizes[name]:,} · {sizes[name] / len(names):.0%}",
            sizes[name] / largest,
            palette[name].colour,
        )
        for name in sorted(sizes, key=lambda name: -sizes[name])
        if sizes[name]
    ]


def texts(particles: Particles, column: str) -> NDArray[np.object_]:
    """A column as names."""
    out = np.empty(len(particles), dtype=object)
    out[:] = [as_name(value) for value in particles[column]]
    return out


def as_name(value: Any) -> str:
    """A table's value as a name: whole numbers without ``.0``, missing values empty.

    >>> as_name(3.0), as_name("ribosome"), as_name(float("nan")), as_name(None)
    ('3', 'ribosome', '', '')
    """
    if isinstance(value, float | np.floating) and float(value).is_integer():
        return str(int(value))
    return "" if str(value) in ("nan", "<NA>", "None") else str(value)


def numbers(particles: Particles, column: str | None) -> NDArray[np.float64] | None:
    """A column as numbers, None when there is none of that name."""
    return np.asarray(particles[column], dtype=np.float64) if column is not None and column in particles else None


def first_column(particles: Particles, *names: str) -> str | None:
    """The first of these columns that the table has."""
    return next((name for name in names if name in particles), None)


def counted(count: int, one: str, many: str | None = None) -> str:
    """A number with its noun.

    >>> counted(1, "particle"), counted(1200, "particle"), counted(2, "class", "classes")
    ('1 particle', '1,200 particles', '2 classes')
    """
    return f"{count:,} {one if count == 1 else many or one + 's'}"


def listed(words: list[str]) -> str:
    """Words as a list in a sentence.

    >>> listed(["a"]), listed(["a", "b", "c"])
    ('a', 'a, b and c')
    """
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}" if words else ""


def as_list(value: Any) -> list[Any]:
    """``value`` when it is a list, else an empty one."""
    return value if isinstance(value, list) else []


def as_number(value: Any) -> float | None:
    """``value`` when it is a number, else None."""
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None
