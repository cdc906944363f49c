"""One colour a name, the same on the whole page, told apart by colour-blind eyes too."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

# Okabe & Ito, Color Universal Design (2008), without black; ordered by how well they stand out on grey
OKABE_ITO = ("#E69F00", "#56B4E9", "#009E73", "#CC79A7", "#F0E442", "#D55E00", "#0072B2")
NEUTRAL = "#9AA3AD"
DASHES = ("", "5 3", "1.5 3")
CLUSTER = re.compile(r"cluster_\d+")  # clusters have no names of their own
BACKGROUND_NAMES = frozenset({"", "none", "background", "unknown", "noise", "other", "decoy", "false"})


@dataclass(frozen=True)
class Style:
    """How one name is drawn.

    Parameters
    ----------
    name
        The class, cluster or group; ``""`` is shown as "other".
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
        return self.name.replace("_", " ") if CLUSTER.fullmatch(self.name) else self.name or "other"


@dataclass(frozen=True)
class Palette:
    """The styles of a set of names."""

    styles: dict[str, Style]

    @classmethod
    def of(cls, names: Iterable[str]) -> Palette:
        """Give every name a style, in sorted order; names that mean "nothing" are grey.

        After seven names the colours begin again with dashed rings, then with dotted ones. Clusters have a round of
        colours of their own, so that they do not change those of the classes.

        >>> palette = Palette.of(["ribosome", "none", "proteasome"])
        >>> [(s.name, s.colour) for s in palette.styles.values()]
        [('none', '#9AA3AD'), ('proteasome', '#E69F00'), ('ribosome', '#56B4E9')]
        """
        every = sorted(set(names), key=natural)
        clusters = [name for name in every if CLUSTER.fullmatch(name)]
        classes = [name for name in every if name not in clusters and name.lower() not in BACKGROUND_NAMES]
        looks = dict.fromkeys(every, (NEUTRAL, ""))
        for family in (classes, clusters):
            for number, name in enumerate(family):
                turn, colour = divmod(number, len(OKABE_ITO))
                looks[name] = (OKABE_ITO[colour], DASHES[turn % len(DASHES)])
        return cls({name: Style(name, index, *looks[name]) for index, name in enumerate(every)})

    def __getitem__(self, name: str) -> Style:
        return self.styles[name]

    def __len__(self) -> int:
        return len(self.styles)


def natural(name: str) -> list[tuple[str, int]]:
    """Sort key that puts "cluster 2" before "cluster 10".

    >>> sorted(["cluster 10", "b", "cluster 2"], key=natural)
    ['b', 'cluster 2', 'cluster 10']
    """
    return [(words, int(digits or 0)) for words, digits in re.findall(r"(\D*)(\d*)", name)]
