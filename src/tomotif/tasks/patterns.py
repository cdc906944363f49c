"""Groups of patterns: pictures of clusters → their shapes → a proposed group with its evidence; a person may change it.

Flow: pictures (decoded cluster centres or averages) + ``Particles`` with a column ``pattern`` → descriptors of every
picture and of its members → one ``Pattern`` each. The groups are those that a person picked from the pictures in Zeng
et al. 2018, J Struct Biol 202:150. What a person decides lies in one small YAML file, which outlives a rerun. Not
here: the clusters and their pictures, and putting them back into the tomogram (embed).
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
import yaml
from numpy.typing import NDArray
from pydantic import Field

from tomotif.core import RESIDUALS, InputError, Particles, Settings, Subtomograms, Tomogram
from tomotif.io.files import existing_file, replacing
from tomotif.ops.pattern_shape import Body, PatternShape, describe_picture, likeness
from tomotif.ops.rotate import rotate_volumes

Group = Literal[
    "surface patch",
    "large globule",
    "small globule",
    "interaction",
    "filament",
    "carbon edge or border",
    "noise",
]
GROUPS: tuple[Group, ...] = get_args(Group)
NOISE: Group = "noise"
BORDER: Group = "carbon edge or border"
NO_STRUCTURE = frozenset({NOISE, BORDER})
FILE_NAME = "patterns.yaml"

_FAINT = 0.1
"""A picture with less than this share of the contrast of the strongest one is noise: an autoencoder draws the centre
of a cluster of noise flat, however smooth."""
_HALF = 0.6
"""One-sidedness from which half of the box is dense: an edge through the middle has 1, and 0.8 under noise at a signal
of 15; an edge a quarter of the radius off has 0.9 and 0.7. A globule at a membrane has 0.15."""
_FILLED = 0.2
"""Least filling of a box that is half dense: an edge a quarter of the radius off leaves a third."""
_AT_BORDER, _ENRICHED = 0.5, 2.0
"""Share of the members within half a box of the tomogram's border that makes a pattern one of the border, if it is so
many times that of all particles."""
_LAYER = 0.3
"""Layer from which a picture is one of a surface, though no outline of a sheet is found: a membrane's average has 0.4,
globules have 0.2 at most."""
_LOOKED_AT = 64
"""Members whose boxes are compared with the picture."""


class PatternSettings(Settings):
    """How groups are proposed."""

    large_radius: float = Field(default=75.0, gt=0)
    """Radius in Å from which a globule is large; the default is that of 1.5 MDa of protein at 1.21 Å³ per Da."""
    smoothing: float = Field(default=25.0, ge=0)
    """Standard deviation in Å of the Gaussian that pictures are seen through, at least one voxel."""
    least_signal: float = Field(default=4.5, ge=0)
    """A picture whose densest matter rises fewer standard deviations of its background above it is noise."""


@dataclass(frozen=True)
class Members:
    """What is known of the members of a pattern.

    Attributes
    ----------
    particles
        How many there are.
    near_border
        Share of them within half a box of the tomogram's border; None when the tomograms' sizes are not known.
    agreement
        Mean correlation of their boxes, turned into the picture's frame and seen through the same Gaussian, with the
        picture; None without boxes.
    """

    particles: int
    near_border: float | None = None
    agreement: float | None = None


@dataclass(frozen=True)
class Pattern:
    """One pattern, and what it is taken for.

    Attributes
    ----------
    number
        From 1; the column ``pattern`` of its members.
    group
        What it is: proposed, or decided by a person.
    proposed
        What its shape proposes.
    evidence
        One line that says why it is proposed.
    shape
        Descriptors of the picture.
    members
        Descriptors of the members.
    name
        What a person calls it, else empty.
    """

    number: int
    group: Group
    proposed: Group
    evidence: str
    shape: PatternShape
    members: Members
    name: str = ""

    @property
    def label(self) -> str:
        """Its name, else its group, with its number."""
        return f"{self.name or self.group} ({self.number})"

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON values; lengths in Å and volumes in Å³."""
        return {
            "pattern": self.number,
            "group": self.group,
            "proposed": self.proposed,
            "name": self.name,
            "evidence": self.evidence,
            "particles": self.members.particles,
            "near_border": rounded(self.members.near_border),
            "agreement": rounded(self.members.agreement),
            "contrast": rounded(self.shape.contrast),
            "signal": rounded(self.shape.signal),
            "filling": rounded(self.shape.filling),
            "one_sidedness": rounded(self.shape.one_sidedness),
            "layer": rounded(self.shape.layer),
            "bodies": [
                {
                    "radius": round(found.radius, 1),
                    "volume": round(found.volume),
                    "sphericity": rounded(found.sphericity),
                    "planarity": rounded(found.planarity),
                    "elongation": rounded(found.elongation),
                    "rim": rounded(found.rim),
                }
                for found in self.shape.bodies
            ],
        }


def rounded(value: float | None) -> float | None:
    """Three decimals, or none."""
    return None if value is None else round(value, 3)


def propose_groups(
    pictures: NDArray[np.floating],
    particles: Particles,
    settings: PatternSettings = PatternSettings(),
    *,
    voxel_size: float,
    tomograms: Sequence[Tomogram] = (),
    subtomograms: Subtomograms | None = None,
) -> list[Pattern]:
    """Say of every pattern what it seems to be, from its shape alone.

    Parameters
    ----------
    pictures
        Bright pictures, shape (k, d, d, d); picture i is that of pattern i + 1.
    particles
        Their members, with the column ``pattern`` (0 for none).
    settings
        Where a globule is large and a picture is noise.
    voxel_size
        Edge of a voxel of the pictures in Å.
    tomograms
        Those of the particles, for their borders; may be left out.
    subtomograms
        The boxes of the particles, row by row, for their agreement with the pictures; may be left out.

    Returns
    -------
    list of Pattern
        In the order of the pictures.

    Raises
    ------
    InputError
        When the pictures are no cubes, hold NaN or infinity, are fewer than the patterns, or the column is missing, or
        the boxes have another size than the pictures.
    """
    check_pictures(pictures)
    number = pattern_numbers(particles, len(pictures))
    shapes = [describe_picture(picture, voxel_size, smoothing=settings.smoothing) for picture in pictures]
    strongest = max((shape.contrast for shape in shapes), default=0.0)
    near = near_border(particles, tomograms, 0.5 * pictures.shape[1] * voxel_size)
    patterns = []
    for i, shape in enumerate(shapes):
        rows = np.flatnonzero(number == i + 1)
        members = Members(
            particles=len(rows),
            near_border=None if near is None or not len(rows) else float(near[rows].mean()),
            agreement=agreement(pictures[i], subtomograms, rows, settings.smoothing),
        )
        usual = None if near is None or not len(rows) else usually_near(near, particles, rows)
        group, evidence = judged(shape, members, settings, strongest=strongest, usually_near_border=usual)
        patterns.append(Pattern(i + 1, group, group, evidence, shape, members))
    return patterns


def check_pictures(pictures: NDArray[np.floating]) -> None:
    """Refuse what are no pictures of patterns.

    Raises
    ------
    InputError
        When they are no cubes or hold NaN or infinity.
    """
    if pictures.ndim != 4 or not len(pictures) or len(set(pictures.shape[1:])) != 1:
        raise InputError(f"expected one cubic picture a pattern (k, d, d, d), got an array of shape {pictures.shape}")
    bad = [str(i + 1) for i, picture in enumerate(pictures) if not np.isfinite(picture).all()]
    if bad:
        raise InputError(f"expected finite pictures, got NaN or infinity in pattern {', '.join(bad)}")


def pattern_numbers(particles: Particles, count: int) -> NDArray[np.int64]:
    """The column ``pattern``: whole numbers from 0 (none) to the number of pictures.

    Raises
    ------
    InputError
        When there is a number without a picture.
    """
    number = particles["pattern"].to_numpy(np.int64)
    if len(number) and not 0 <= number.min() <= number.max() <= count:
        raise InputError(
            f"expected patterns from 0 (none) to {count}, as there are {count} pictures, got {number.min()} to "
            f"{number.max()}; the particles and the pictures are not of one run"
        )
    return number


# ---------------------------------------------------------------------------------------------------- the members


def near_border(particles: Particles, tomograms: Sequence[Tomogram], distance: float) -> NDArray[np.bool_] | None:
    """Which particles lie within a distance in Å of their tomogram's border; None without tomograms."""
    extents = {tomogram.name: tomogram.volume.extent for tomogram in tomograms}
    if not set(particles.tomogram) <= set(extents) or not len(particles):
        return None
    extent = np.array([extents[name] for name in particles.tomogram])
    depth = np.minimum(particles.position, extent - particles.position)
    return np.asarray(depth.min(axis=1) < distance)


def usually_near(near: NDArray[np.bool_], particles: Particles, rows: NDArray[np.int64]) -> float:
    """Share of all particles near the border, in the tomograms of some of them: a mean over these."""
    names, where = np.unique(particles.tomogram.astype(str), return_inverse=True)
    share = np.bincount(where, weights=near) / np.bincount(where, minlength=len(names))
    return float(share[where[rows]].mean())


def agreement(
    picture: NDArray[np.floating], subtomograms: Subtomograms | None, rows: NDArray[np.int64], smoothing: float
) -> float | None:
    """Mean correlation of some members with their picture; None without boxes or members.

    Raises
    ------
    InputError
        When the boxes have another size than the picture.
    """
    if subtomograms is None or not len(rows):
        return None
    if subtomograms.box_px != len(picture):
        raise InputError(
            f"expected boxes as large as the pictures, got boxes of {subtomograms.box_px} and pictures of "
            f"{len(picture)} voxels"
        )
    some = rows[np.linspace(0, len(rows) - 1, min(len(rows), _LOOKED_AT)).astype(np.int64)]
    members = subtomograms.particles.take(some)
    back = members.orientation.inv()
    residual = np.zeros((len(some), 3))
    if all(name in members for name in RESIDUALS):
        residual = np.array(members.columns[list(RESIDUALS)], np.float64)
    boxes = torch.from_numpy(subtomograms.boxes(some))
    turned = rotate_volumes(boxes, back, -back.apply(residual) / subtomograms.voxel_size).numpy()
    return float(likeness(turned, picture, subtomograms.voxel_size, smoothing=smoothing).mean())


# ----------------------------------------------------------------------------------------------------- the verdict


def judged(
    shape: PatternShape,
    members: Members,
    settings: PatternSettings,
    *,
    strongest: float,
    usually_near_border: float | None = None,
) -> tuple[Group, str]:
    """Group of a pattern, and the line that says why.

    Parameters
    ----------
    shape, members
        What is measured of it.
    settings
        Where a globule is large and a picture is noise.
    strongest
        Contrast of the strongest picture.
    usually_near_border
        Share of all particles of the same tomograms near the border.
    """
    if shape.signal < settings.least_signal or not shape.bodies:
        return NOISE, f"nothing rises clearly above the background: {shape.signal:.1f} times its standard deviation"
    if shape.contrast < _FAINT * strongest:
        return NOISE, f"its contrast is {shape.contrast / strongest:.0%} of that of the strongest picture"
    if shape.one_sidedness >= _HALF and shape.filling >= _FILLED:
        return (
            BORDER,
            f"one half of the box is dense and the other empty (one-sidedness {shape.one_sidedness:.2f}), "
            f"{shape.filling:.0%} of the box is filled",
        )
    if members.near_border is not None and at_border(members.near_border, usually_near_border or 0.0):
        return (
            BORDER,
            f"{members.near_border:.0%} of its members lie within half a box of the tomogram's border, "
            f"{usually_near_border or 0:.0%} of all particles there",
        )
    if shape.layer >= _LAYER and all(found.kind == "globule" for found in shape.bodies):
        return (
            "surface patch",
            f"a layer runs through the box to all sides, by {shape.layer:.0%} of the contrast denser than its sides",
        )
    evidence = (
        f"{' and '.join(map(described, shape.bodies))}; {shape.signal:.0f} times the background's standard deviation"
    )
    return named(shape.bodies, settings), evidence


def at_border(share: float, usual: float) -> bool:
    """Whether so many members near the border are more than chance; never where most particles are near it.

    >>> at_border(0.9, 0.2), at_border(0.9, 0.5), at_border(1.0, 0.7)
    (True, False, False)
    """
    return share >= max(_AT_BORDER, _ENRICHED * usual)


def described(found: Body) -> str:
    """One body in words."""
    if found.kind == "sheet":
        return f"a sheet (planarity {found.planarity:.2f}) that runs out of the box ({found.rim:.0%} of its rim)"
    if found.kind == "filament":
        return f"a filament (elongation {found.elongation:.2f}) that runs out of the box ({found.rim:.0%} of its rim)"
    return f"a globule of {found.radius:.0f} Å radius ({found.volume:.2g} Å³, sphericity {found.sphericity:.2f})"


def named(bodies: Sequence[Body], settings: PatternSettings) -> Group:
    """The group that these bodies make, largest first."""
    count = Counter(found.kind for found in bodies)
    if count["globule"] > 1 or len(count) > 1:
        return "interaction"
    if "sheet" in count:
        return "surface patch"
    if "filament" in count:
        return "filament"
    return "large globule" if bodies[0].radius >= settings.large_radius else "small globule"


def with_groups(particles: Particles, patterns: Sequence[Pattern]) -> Particles:
    """The particles with the column ``group``: that of their pattern, empty for none."""
    groups = np.array(["", *(pattern.group for pattern in patterns)], dtype=object)
    return particles.with_columns(group=groups[pattern_numbers(particles, len(patterns))])


# ------------------------------------------------------------------------------------------------ what a person says


@dataclass(frozen=True)
class Override:
    """What a person decided of a pattern; None or empty where nothing."""

    group: Group | None = None
    name: str = ""


_HEAD = f"""\
# What each pattern is taken for. Change `group` and give a `name` where you know better: the next stages go by this
# file, and a rerun keeps what you changed. Groups: {", ".join(GROUPS)}.
"""
_KEYS = ("group", "name", "proposed", "particles", "evidence")


def write_patterns(path: Path, patterns: Sequence[Pattern]) -> list[Pattern]:
    """Write the file in which a person changes groups and names; what it says already stays.

    Parameters
    ----------
    path
        Usually ``patterns.yaml``.
    patterns
        As proposed.

    Returns
    -------
    list of Pattern
        With the groups and names that the file had been given.

    Raises
    ------
    InputError
        When there is such a file and it is damaged, see :func:`read_overrides`.
    OutputError
        When the place cannot be written.
    """
    path = Path(path)
    decided = with_overrides(patterns, read_overrides(path, len(patterns))) if path.exists() else list(patterns)
    entries = {
        pattern.number: {
            "group": pattern.group,
            "name": pattern.name,
            "proposed": pattern.proposed,
            "particles": pattern.members.particles,
            "evidence": pattern.evidence,
        }
        for pattern in decided
    }
    text = yaml.safe_dump(entries, sort_keys=False, allow_unicode=True, width=200)
    with replacing(path) as temporary:
        temporary.write_text(_HEAD + text, encoding="utf-8")
    return decided


def set_aside(path: Path, patterns: Sequence[Pattern]) -> Path | None:
    """Take the file away when what a person decided there is of other patterns: theirs have other numbers of particles.

    Entries without such a number, which a person wrote from nothing, are of whatever patterns there are.

    Parameters
    ----------
    path
        Usually ``patterns.yaml``.
    patterns
        As proposed now.

    Returns
    -------
    Path or None
        Where decisions lie now, ``patterns.before1.yaml`` or the next number that is free; None where there were none.
    """
    try:
        entries = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError, UnicodeDecodeError):
        return None  # none there, or reading it says what is wrong
    if not isinstance(entries, dict):
        return None
    now = {one.number: one.members.particles for one in patterns}
    then = {n: entry["particles"] for n, entry in entries.items() if isinstance(entry, dict) and "particles" in entry}
    if all(now.get(number) == particles for number, particles in then.items()):
        return None
    if all(isinstance(entry, dict) and override(entry) == Override() for entry in entries.values()):
        path.unlink()
        return None
    places = (path.with_name(f"{path.stem}.before{number}{path.suffix}") for number in itertools.count(1))
    return path.replace(next(place for place in places if not place.exists()))


def read_overrides(path: Path, count: int) -> dict[int, Override]:
    """What a person changed in the file of patterns.

    A group counts as changed where it is not the proposed one, so that a better proposal of a later version comes
    through where nobody objected.

    Parameters
    ----------
    path
        What :func:`write_patterns` wrote, changed or not; or only the entries that matter, such as
        ``3: {group: filament}``.
    count
        Number of patterns.

    Returns
    -------
    dict
        By number of the pattern; those that nobody changed are missing.

    Raises
    ------
    InputError
        When it is no such file, or names unknown patterns, keys or groups: all of them together.
    """
    text = existing_file(path, f"the file of patterns, such as {FILE_NAME}").read_text(encoding="utf-8")
    try:
        twice = repeated_keys(yaml.compose(text, yaml.SafeLoader))
        content = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError) as error:
        raise InputError(f"expected YAML in {path}, got {' '.join(str(error).split())}") from None
    if not isinstance(content or {}, dict):
        raise InputError(f"expected entries such as '3: {{group: filament}}' in {path}, got {content!r:.60}")
    entries: dict[Any, Any] = content or {}
    problems = [f"pattern {key} stands there twice" for key in twice]
    for number, entry in entries.items():
        problems += problems_of(number, entry, count)
    if problems:
        raise InputError(f"{path}: {'; '.join(problems)}")
    found = {number: override(entry) for number, entry in entries.items()}
    return {number: given for number, given in found.items() if given != Override()}


def repeated_keys(node: yaml.Node | None) -> list[str]:
    """Keys that a mapping has more than once, of which YAML's reader would silently take the last."""
    if not isinstance(node, yaml.MappingNode):
        return []
    counts = Counter(str(key.value) for key, _ in node.value)
    return [key for key, times in counts.items() if times > 1]


def problems_of(number: Any, entry: Any, count: int) -> Iterator[str]:
    """What is wrong with one entry."""
    if type(number) is not int or not 1 <= number <= count:
        yield f"expected patterns from 1 to {count}, got {number!r}; delete its entry"
    elif not isinstance(entry, dict):
        yield f"expected 'group' and 'name' of pattern {number}, got {entry!r:.60}"
    else:
        yield from (
            f"unknown key {key!r} of pattern {number}, known: {', '.join(_KEYS)}" for key in entry if key not in _KEYS
        )
        group = entry.get("group")
        if group is not None and group not in GROUPS:
            near = get_close_matches(str(group), GROUPS, n=1, cutoff=0.5)
            hint = f"; did you mean {near[0]!r}?" if near else f"; groups: {', '.join(GROUPS)}"
            yield f"unknown group {group!r} of pattern {number}{hint}"
        if not isinstance(entry.get("name") or "", str | int | float):
            yield f"expected a name of pattern {number}, got {entry['name']!r:.60}"


def override(entry: Mapping[str, Any]) -> Override:
    """What an entry changes."""
    group, name = entry.get("group"), entry.get("name")
    return Override(None if group == entry.get("proposed") else group, "" if name is None else str(name).strip())


def with_overrides(patterns: Sequence[Pattern], overrides: Mapping[int, Override]) -> list[Pattern]:
    """The patterns as a person decided them."""
    given = [overrides.get(pattern.number, Override()) for pattern in patterns]
    return [
        replace(pattern, group=said.group or pattern.group, name=said.name or pattern.name)
        for pattern, said in zip(patterns, given, strict=True)
    ]
