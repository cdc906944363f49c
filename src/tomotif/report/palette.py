"""One colour a name, the same on the whole page, told apart by colour-blind eyes too."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

# Okabe & Ito, Color Universal Design (2008), without black; ordered by how well they stand out on grey
OKABE_ITO = ("#E69F00", "#56B4E9", "#009E73", "#CC79A7", "#F0E442", "#D55E00", "#0072B2")
NEUTRAL = "#9AA3AD"
DASHES = ("", "5 3", "1.5 3")
BACKGROUND_NAMES = frozenset({"", "none", "background", "unknown", "noise", "other", "decoy", "false"})


@dataclass(frozen=True)
class Style:
    """How one name is drawn.

    Parameters
    ----------
    name
        The class, cluster or group; ``""`` is shown as "unnamed".
    index
        Number of the name within its palette, which the page's filters use.
    colour
        ``#RRGGBB``.
    dash
        Dash pattern of its ring in pixels (SVG's ``stroke-dasharray``), empty for a solid one.
    """

    name: str
    index: int
    colour: str
    dash: str = ""

    @property
    def label(self) -> str:
        """The name as shown."""
        return self.name or "unnamed"


@dataclass(frozen=True)
class Palette:
    """The styles of a set of names."""

    styles: dict[str, Style]

    @classmethod
    def of(cls, names: Iterable[str]) -> Palette:
        """Give every name a style, in sorted order; names that mean "nothing" are grey.

        After seven names the colours begin again with dashed rings, then with dotted ones.

        >>> palette = Palette.of(["ribosome", "none", "proteasome"])
        >>> [(s.name, s.colour) for s in palette.styles.values()]
        [('none', '#9AA3AD'), ('proteasome', '#E69F00'), ('ribosome', '#56B4E9')]
        """
        every = sorted(set(names), key=natural)
        coloured = [name for name in every if name.lower() not in BACKGROUND_NAMES]
        styles = {}
        for index, name in enumerate(every):
            if name in coloured:
                turn, colour = divmod(coloured.index(name), len(OKABE_ITO))
                styles[name] = Style(name, index, OKABE_ITO[colour], DASHES[turn % len(DASHES)])
            else:
                styles[name] = Style(name, index, NEUTRAL)
        return cls(styles)

    def __getitem__(self, name: str) -> Style:
        return self.styles[name]

    def __len__(self) -> int:
        return len(self.styles)


def natural(name: str) -> tuple[int, float, str]:
    """Sort key that puts numbers before words, and 2 before 10.

    >>> sorted(["10", "b", "2"], key=natural)
    ['2', '10', 'b']
    """
    return (0, float(name), "") if name.lstrip("-").isdigit() else (1, 0.0, name)
