"""The section of mined patterns: the groups they are taken for, and a card for every pattern."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

from tomotif.core import InputError, Particles, Tomogram
from tomotif.io.files import read_json
from tomotif.io.stack import open_stack
from tomotif.io.star import read_tomograms
from tomotif.report.blocks import Section, as_list, as_number, counted, listed, numbers
from tomotif.report.figures import central_slices, png, side_by_side, stretch
from tomotif.report.palette import NEUTRAL, Palette, Style
from tomotif.report.parts import add_slices, has_column
from tomotif.report.runs import TOMOGRAMS, Run, mapping
from tomotif.report.scores import ScoreRow, ScoreTable, Value
from tomotif.report.slices import Colouring

DECIDED, SAID = "patterns.json", "patterns.yaml"  # beside the folder of the patterns
PICTURES = "pictures.mrcs"
NO_STRUCTURE = frozenset({"noise", "carbon edge or border"})  # groups that slices hide at first
DOTS = 300  # members drawn on a card at most
GAP = 4.0  # between the views from above and from the side
GROUPS = (
    "A pattern is a kind of picture that many particles share. Its group is proposed from the shape of the picture, "
    "that of a border also from where its members lie; what a person wrote into patterns.yaml goes before that."
)
CARDS = (
    "The largest first. Pictures: central xy, xz and yz slices of what the members have in common; dense matter is "
    "bright. The line below says why the group is proposed. Dots: where the members lie in the tomogram that holds the "
    "most of them, from above (x right, y down) and from the side (x right, z down){some}. Likeness: mean correlation "
    "of the members with the picture."
)


@dataclass(frozen=True)
class Pattern:
    """What ``patterns.json`` says of one pattern; empty or None where nothing.

    Attributes
    ----------
    number
        From 1.
    group, proposed
        What it is taken for, and what its shape proposes; they differ where a person decided.
    name
        What a person calls it.
    evidence
        Why the group is proposed.
    particles
        Number of members.
    near_border
        Share of the members near the border of their tomogram.
    agreement
        Mean correlation of the members with the picture.
    """

    number: int
    group: str
    proposed: str
    name: str
    evidence: str
    particles: int
    near_border: float | None = None
    agreement: float | None = None

    @property
    def by_person(self) -> bool:
        """Whether a person gave it a name or another group.

        >>> Pattern(1, "filament", "noise", "", "", 5).by_person, Pattern(1, "noise", "noise", "", "", 5).by_person
        (True, False)
        """
        return bool(self.name) or self.group != self.proposed


@dataclass(frozen=True)
class Footprint:
    """Members of a pattern as dots in the outline of a tomogram, whose width is 100.

    ``height`` and ``depth`` are the extents along y and z, ``dots`` is the data of an SVG path that has both views.
    """

    tomogram: str
    height: float
    depth: float
    dots: str

    @property
    def side(self) -> float:
        """Where the view from the side begins."""
        return self.height + GAP


@dataclass(frozen=True)
class PatternCard:
    """What is known of one pattern, as shown; the picture is empty and the footprint None where they are missing."""

    style: Style
    by_person: bool
    image: str
    alt: str
    reason: str
    footprint: Footprint | None
    facts: dict[str, str]


# ---- what the files say ---------------------------------------------------------------------------------------------


def read_patterns(run: Run) -> list[Pattern]:
    """What is decided of the patterns of a run, the largest first.

    Raises
    ------
    InputError
        When there is no ``patterns.json`` beside the run, or it names no pattern.
    """
    path = run.folder.parent / DECIDED
    if not path.is_file():
        raise InputError(f"no {DECIDED} in {path.parent}: groups and names of the patterns are not shown")
    entries = [mapping(entry) for entry in as_list(read_json(path))]
    patterns = [pattern_of(entry) for entry in entries if (as_number(entry.get("pattern")) or 0) >= 1]
    if not patterns:
        raise InputError(f"expected a list of patterns in {path}, found none: groups and names are not shown")
    return sorted(patterns, key=lambda one: (-one.particles, one.number))


def pattern_of(entry: dict[str, Any]) -> Pattern:
    """One entry of ``patterns.json``."""
    text = {key: str(entry.get(key) or "") for key in ("group", "proposed", "name", "evidence")}
    return Pattern(
        number=int(entry["pattern"]),
        particles=int(as_number(entry.get("particles")) or 0),
        near_border=as_number(entry.get("near_border")),
        agreement=as_number(entry.get("agreement")),
        **{**text, "proposed": text["proposed"] or text["group"]},
    )


def known_patterns(section: Section) -> list[Pattern]:
    """The patterns of a run; of those that nothing is decided of, and a note, only how many members they have."""
    decided = section.attempt(read_patterns, section.run)
    if decided is not None:
        return decided
    particles = section.attempt(lambda: section.run.particles)
    if particles is None or not has_column(section, particles, "pattern"):
        return []
    return counted_patterns(particles)


def counted_patterns(particles: Particles) -> list[Pattern]:
    """Patterns that nothing is known of but their members, the largest first."""
    sizes = Counter(member_of(particles).tolist())
    return [Pattern(n, "", "", "", "", size) for n, size in sorted(sizes.items(), key=lambda item: -item[1]) if n > 0]


def pattern_names(run: Run) -> set[str]:
    """Names of styles that the patterns of a run need."""
    if run.command not in ("patterns", "embed") and not (run / PICTURES).is_file():
        return set()
    decided = (run.folder.parent / DECIDED).is_file()
    patterns = read_patterns(run) if decided else counted_patterns(run.particles)
    return {f"pattern{one.number}" for one in patterns}


def unheard(run: Run, patterns: Sequence[Pattern]) -> list[str]:
    """What ``patterns.yaml`` says that the last run did not know yet; empty when nothing.

    Raises
    ------
    InputError
        When it is no such file.
    """
    path = run.folder.parent / SAID
    if not path.is_file():
        return []
    said = said_in(path)
    wanted = {one.number: mapping(said.get(one.number)) for one in patterns}
    new = [
        f"{one.number}"
        for one in sorted(patterns, key=lambda one: one.number)
        if (wanted[one.number].get("group") or one.proposed, str(wanted[one.number].get("name") or "").strip())
        != (one.group, one.name)
    ]
    which = f"pattern{'s' if len(new) > 1 else ''} {listed(new)}"
    told = f"{SAID} says something else of {which} than the last run knew: run tomotif mine again."
    return [told] if new else []


def said_in(path: Path) -> dict[Any, Any]:
    """Entries of a ``patterns.yaml``.

    Raises
    ------
    InputError
        When it is no YAML.
    """
    try:
        return mapping(yaml.safe_load(path.read_text(encoding="utf-8")))
    except yaml.YAMLError as error:
        raise InputError(f"expected YAML in {path}, got {' '.join(str(error).split())}") from error


def member_of(particles: Particles) -> NDArray[np.int64]:
    """Number of the pattern of each particle, 0 for none, shape (n,)."""
    number = numbers(particles, "pattern")
    return np.zeros(len(particles), np.int64) if number is None else np.nan_to_num(number).astype(np.int64)


def pattern_styles(patterns: Sequence[Pattern], classes: Palette) -> Palette:
    """Styles of the patterns by their number as text; each is called by its name, else by its group.

    >>> styles = pattern_styles([Pattern(3, "filament", "noise", "", "", 5)], Palette.of(["pattern3"]))
    >>> styles["3"].label, styles["3"].colour, styles["0"].label
    ('filament (3)', '#E69F00', 'no pattern (0)')
    """
    styles = {}
    for one in sorted(patterns, key=lambda one: one.number):
        name = one.name or one.group
        style = classes[f"pattern{one.number}"]
        styles[str(one.number)] = replace(style, name=str(one.number), title=name) if name else style
    return Palette({**styles, "0": Style("0", len(classes), NEUTRAL, title="no pattern")})


def hidden(patterns: Sequence[Pattern]) -> frozenset[str]:
    """Patterns that slices hide at first: those that are no structure, unless that is all there is."""
    off = {str(one.number) for one in patterns if one.group in NO_STRUCTURE}
    return frozenset({"0", *(off if len(off) < len(patterns) else ())})


# ---- what is shown --------------------------------------------------------------------------------------------------


def group_table(patterns: Sequence[Pattern]) -> ScoreTable:
    """How many patterns and particles every group has, the largest first."""
    sizes = group_sizes(patterns)
    total, groups = sizes.total(), [name for name, _ in sizes.most_common()]
    columns = ["patterns", "decided by a person", "particles", "share"]
    rows = [group_row(name, of_group(patterns, name), total) for name in groups]
    return ScoreTable(columns, rows, [group_row("all", patterns, total)])


def group_sizes(patterns: Sequence[Pattern]) -> Counter[str]:
    """How many particles every group has."""
    sizes: Counter[str] = Counter()
    for one in patterns:
        sizes[one.group] += one.particles
    return sizes


def of_group(patterns: Sequence[Pattern], group: str) -> list[Pattern]:
    """The patterns of a group."""
    return [one for one in patterns if one.group == group]


def group_row(label: str, patterns: Sequence[Pattern], total: int) -> ScoreRow:
    """One row of the table of groups."""
    particles, decided = sum(one.particles for one in patterns), sum(one.by_person for one in patterns)
    counts = [f"{len(patterns):,}", f"{decided:,}" if decided else "–", f"{particles:,}"]
    return ScoreRow(label, None, counts, [Value(f"{particles / max(total, 1):.1%}")])


def cards(section: Section, patterns: Sequence[Pattern], styles: Palette) -> list[PatternCard]:
    """A card for every pattern, in the order given.

    Parameters
    ----------
    section
        Of the run that found the patterns; what is missing is noted there.
    patterns
        The patterns.
    styles
        Their styles, as of :func:`pattern_styles`.
    """
    pictures = section.attempt(pictures_of, section.run)
    particles = section.attempt(lambda: section.run.particles)
    tomograms = section.attempt(tomograms_of, section.run) or {}
    number = None if particles is None else member_of(particles)
    total, made = sum(one.particles for one in patterns), []
    for one in patterns:
        style = styles[str(one.number)]
        members = None if particles is None or number is None else particles.take(number == one.number)
        known = pictures is not None and one.number <= len(pictures)
        card = PatternCard(
            style=style,
            by_person=one.by_person,
            image=slices_of(pictures[one.number - 1]) if known and pictures is not None else "",
            alt=f"central xy, xz and yz slices of the picture of {style.label}",
            reason=one.evidence,
            footprint=None if members is None else footprint(members, tomograms),
            facts=card_facts(one, members, total),
        )
        made.append(card)
    return made


def pictures_of(run: Run) -> NDArray[np.floating]:
    """Pictures of the patterns, memory-mapped, shape (k, d, d, d); picture i is that of pattern i + 1.

    Raises
    ------
    InputError
        When they are missing or damaged.
    """
    if not (run / PICTURES).is_file():
        raise InputError(f"no {PICTURES} in {run.name}: pictures of the patterns are not shown")
    return open_stack(run / PICTURES)[0]


def tomograms_of(run: Run) -> dict[str, Tomogram]:
    """The run's tomograms by name, memory-mapped.

    Raises
    ------
    InputError
        When the run names none, or they cannot be read.
    """
    if not (run / TOMOGRAMS).is_file():
        raise InputError(f"no {TOMOGRAMS} in {run.name}: where the members lie is not shown")
    return {tomogram.name: tomogram for tomogram in read_tomograms(run / TOMOGRAMS, check=False)}


def slices_of(picture: NDArray[np.floating]) -> str:
    """Central slices of a picture, shape (d, d, d), in three directions with common contrast, as one PNG."""
    images = central_slices(np.asarray(picture, np.float32), planes=("xy", "xz", "yz"))
    return png(side_by_side(list(stretch(np.stack(images), 1, 99.8))))


def card_facts(one: Pattern, members: Particles | None, total: int) -> dict[str, str]:
    """Numbers of one pattern as texts."""
    facts = {"particles": f"{one.particles:,} · {one.particles / max(total, 1):.1%}"}
    if one.group:
        facts["group"] = one.group
    if one.proposed != one.group:
        facts["proposed"] = one.proposed
    if members is not None and len(members):
        facts["lie in"] = places(members)
    if one.near_border is not None:
        facts["near the border"] = f"{one.near_border:.0%}"
    if one.agreement is not None:
        facts["likeness"] = f"{one.agreement:.2f}"
    return facts


def places(members: Particles) -> str:
    """Which tomograms members lie in.

    >>> places(Particles.create(["a", "b", "b"], np.zeros((3, 3))))
    '2 tomograms, 2 in b'
    """
    [(most, count), *others] = Counter(map(str, members.tomogram)).most_common()
    return f"{len(others) + 1} tomograms, {count:,} in {most}" if others else most


def footprint(members: Particles, tomograms: dict[str, Tomogram]) -> Footprint | None:
    """Where members lie in the tomogram that holds the most of them; None when that is not known."""
    most = Counter(map(str, members.tomogram)).most_common(1)
    if not most or most[0][0] not in tomograms:
        return None
    tomogram = tomograms[most[0][0]]
    extent = np.asarray(tomogram.volume.extent)
    z, y, x = 100 / extent[2] * members.of_tomogram(tomogram.name).position.T
    height, depth = (100 / extent[2] * extent[:2][::-1]).tolist()
    some = np.linspace(0, len(x) - 1, min(len(x), DOTS)).astype(np.intp)
    seen = [*zip(x[some], y[some], strict=True), *zip(x[some], z[some] + height + GAP, strict=True)]
    return Footprint(tomogram.name, height, depth, "".join(f"M{a:.1f} {b:.1f}h0" for a, b in seen))


# ---- one function a command -----------------------------------------------------------------------------------------


def patterns_section(section: Section, classes: Palette, brief: bool) -> None:
    """The groups, and a card for every pattern; members over the slices unless an embedding on the page paints them."""
    section.title = "Patterns"
    patterns = known_patterns(section)
    if not patterns:
        return
    section.notes += section.attempt(unheard, section.run, patterns) or []
    styles = pattern_styles(patterns, classes)
    describe(section, patterns)
    if any(one.group for one in patterns):
        section.add("scores", "Groups", group_table(patterns), GROUPS)
    some = f", {DOTS} of them at most" if max(one.particles for one in patterns) > DOTS else ""
    section.add("patterns", "Every pattern", cards(section, patterns, styles), CARDS.format(some=some))
    particles = section.attempt(lambda: section.run.particles)
    if not brief and particles is not None:
        names = member_of(particles).astype(str).astype(object)
        add_slices(section, Colouring(names, styles, quiet=hidden(patterns)), 4, "Members in the tomogram")


def describe(section: Section, patterns: Sequence[Pattern]) -> None:
    """Say how many patterns there are, and what they are taken for."""
    total, found = sum(one.particles for one in patterns), counted(len(patterns), "pattern")
    section.lead = f"{counted(total, 'particle')} fell into {found} by what their boxes show. No label was used."
    decided = sum(one.by_person for one in patterns)
    if decided:
        section.lead += f" A person decided on {decided:,} of them."
    section.tiles.append(("Patterns", f"{len(patterns):,}"))
    often = [f"{name} ({size:,})" for name, size in group_sizes(patterns).most_common(3) if name]
    taken = f", most often taken for {listed(often)}" if often else ""
    section.finding = f"Without labels, {counted(total, 'particle')} fell into {found}{taken}."
