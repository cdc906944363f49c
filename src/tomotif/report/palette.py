"""One colour a name, the same on the whole page, told apart by colour-blind eyes too."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

# after Okabe & Ito, Color Universal Design (2008); without black, and some lightened to stand out on grey pictures
COLOURS = ("#E69F00", "#56B4E9", "#00A878", "#CC79A7", "#F0E442", "#E0600F", "#3D7FF0")
NEUTRAL = "#9AA3AD"
DASHES = ("", "5 3", "1.5 3")
CLUSTER = re.compile(r"(cluster|pattern)_?(\d+)")  # clusters and patterns have no names of their own
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
    title
        What the name stands for, such as "RuBisCO" for 1bxn; empty when it speaks for itself.
    """

    name: str
    index: int
    colour: str
    dash: str = ""
    title: str = ""

    @property
    def word(self) -> str:
        """The name in a sentence."""
        cluster = CLUSTER.fullmatch(self.name)
        return self.title or (f"{cluster[1]} {cluster[2]}" if cluster else self.name or "other")

    @property
    def label(self) -> str:
        """The name in a legend or table.

        >>> Style("1bxn", 0, NEUTRAL, title="RuBisCO").label, Style("cluster_3", 0, NEUTRAL).label
        ('RuBisCO (1bxn)', 'cluster 3')
        """
        return f"{self.title} ({self.name})" if self.title else self.word


@dataclass(frozen=True)
class Palette:
    """The styles of a set of names."""

    styles: dict[str, Style]

    @classmethod
    def of(cls, names: Iterable[str], titles: Mapping[str, str] | None = None) -> Palette:
        """Give every name a style, in sorted order; names that mean "nothing" are grey.

        After seven names the colours begin again with dashed rings, then with dotted ones. Clusters and patterns
        have rounds of colours of their own, so that they do not change those of the classes.

        >>> palette = Palette.of(["ribosome", "none", "proteasome"])
        >>> [(s.name, s.colour) for s in palette.styles.values()]
        [('none', '#9AA3AD'), ('proteasome', '#E69F00'), ('ribosome', '#56B4E9')]
        """
        every = sorted(set(names), key=natural)
        kinds = {name: found[1] for name in every if (found := CLUSTER.fullmatch(name))}
        clusters, patterns = ([name for name in kinds if kinds[name] == kind] for kind in ("cluster", "pattern"))
        classes = [name for name in every if name not in kinds and name.lower() not in BACKGROUND_NAMES]
        looks = dict.fromkeys(every, (NEUTRAL, ""))
        for family in (classes, clusters, patterns):
            for number, name in enumerate(family):
                turn, colour = divmod(number, len(COLOURS))
                looks[name] = (COLOURS[colour], DASHES[turn % len(DASHES)])
        words = titles or {}
        return cls({name: Style(name, i, *looks[name], words.get(name, "")) for i, name in enumerate(every)})

    def __getitem__(self, name: str) -> Style:
        """The style of a name; one that was not foreseen, as of a damaged file, is grey."""
        return self.styles.get(name) or Style(name, len(self.styles), NEUTRAL)

    def __len__(self) -> int:
        return len(self.styles)


def natural(name: str) -> list[tuple[str, int]]:
    """Sort key that puts "cluster 2" before "cluster 10".

    >>> sorted(["cluster 10", "b", "cluster 2"], key=natural)
    ['b', 'cluster 2', 'cluster 10']
    """
    return [(words, int(digits or 0)) for words, digits in re.findall(r"(\D*)(\d*)", name)]
