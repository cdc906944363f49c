"""Patterns back in the tomogram, and which of them neighbour which.

Flow: pictures + ``Particles`` with a column ``pattern`` → every picture at its members' positions, turned by their
orientations → ``Labels`` and a density (Zeng et al. 2018, J Struct Biol 202:150). And: ``Particles`` → for every
ordered pair of patterns, how many of the one lie within a contact distance of the other, against members that are
placed anew at random where they find room. Not here: the patterns and their groups (patterns).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from scipy import ndimage
from scipy.sparse import csr_array
from scipy.spatial import cKDTree
from scipy.stats import false_discovery_control, norm

from tomotif.core import InputError, Labels, Particles, Progress, Settings, Tomogram, tomograms_of
from tomotif.core.geometry import centre_index
from tomotif.io.files import allocate, replacing, write_json
from tomotif.io.mrc import HEADER_BYTES, new_header
from tomotif.ops.packing import overlap
from tomotif.ops.pattern_shape import SMOOTHING, object_mask
from tomotif.ops.rotate import sample_rotated

LABELS_NAME, DENSITY_NAME = "labels.mrc", "density.mrc"

_BATCH = 32
"""Members turned together; their boxes are all the memory that is needed."""
_SAME = 1e-3
"""Voxel sizes that differ by less than this fraction are one."""
_EXCLUDED = 0.8
"""Share of the contact distance that exclusion reaches at most: particles that shun each other would otherwise seem to
be large."""
_ANSCOMBE = 3 / 8
"""Added to counts, so that their square roots have equal spread."""

# ------------------------------------------------------------------------------------------------ into the tomogram


def embed(
    pictures: NDArray[np.floating],
    particles: Particles,
    tomogram: Tomogram,
    labels: NDArray[np.integer],
    density: NDArray[np.floating],
    *,
    voxel_size: float,
    names: Mapping[int, str] | None = None,
    smoothing: float = SMOOTHING,
    progress: Progress | None = None,
) -> Labels:
    """Put every pattern's picture at its members' positions and poses.

    Only what is above the picture's level is painted, with its density over the picture's background. Where members
    overlap the denser one gives label and density. Members go along z, so that of memory-mapped output a slab as thick
    as a box is in work; nothing in memory grows with the tomogram.

    Parameters
    ----------
    pictures
        Bright pictures, shape (k, d, d, d), centre d // 2; picture i is that of pattern i + 1.
    particles
        Members with the column ``pattern`` (0 for none) and orientations that take the pictures' frame to the tomogram;
        those of other tomograms are passed over.
    tomogram
        Where they belong.
    labels, density
        Where to write, of the tomogram's shape, all zero; may be memory-mapped.
    voxel_size
        Edge of a voxel of the pictures in Å; where it is not the tomogram's they are resampled.
    names
        Name of each pattern by its number; ``pattern 1`` … by default.
    smoothing
        Standard deviation in Å of the Gaussian through which the level is found.
    progress
        Called with (members done, members).

    Returns
    -------
    Labels
        The labels with the patterns' names.

    Raises
    ------
    InputError
        When there is a number without a picture, or a position that is no number.
    ValueError
        When the output has not the tomogram's shape, or its labels cannot count the patterns.
    """
    check_output(labels, density, tomogram, len(pictures))
    members = members_of(particles, tomogram, len(pictures))
    prints = [stamp(picture, voxel_size, tomogram.voxel_size, smoothing) for picture in pictures]
    number = members["pattern"].to_numpy(np.int64)
    place = members.position / tomogram.voxel_size
    done = 0
    for pattern, rows in batches(number, place[:, 0]):
        nearest = np.rint(place[rows]).astype(np.int64)
        found = turned(prints[pattern - 1], members.take(rows), place[rows] - nearest)
        for box, centre in zip(found, nearest.tolist(), strict=True):
            paint(labels, density, box, centre, pattern)
        done += len(rows)
        if progress is not None:
            progress(done, len(members))
    known = names or {}
    return Labels(labels, tomogram.voxel_size, {i: known.get(i, f"pattern {i}") for i in range(1, len(pictures) + 1)})


def write_embedding(
    folder: Path,
    pictures: NDArray[np.floating],
    particles: Particles,
    tomogram: Tomogram,
    *,
    voxel_size: float,
    names: Mapping[int, str] | None = None,
    smoothing: float = SMOOTHING,
    progress: Progress | None = None,
) -> Labels:
    """As :func:`embed`, into ``labels.mrc`` (names in ``labels.json``) and ``density.mrc`` (float32) in a folder.

    Parameters
    ----------
    folder
        An existing folder.
    pictures, particles, tomogram, voxel_size, names, smoothing, progress
        As in :func:`embed`.

    Raises
    ------
    OutputError
        When there is no room; before anything is painted.
    """
    dtype = np.dtype(np.int8 if len(pictures) <= np.iinfo(np.int8).max else np.uint16)
    with ExitStack() as files:
        maps = [
            files.enter_context(new_map(folder / name, tomogram, kind))
            for name, kind in ((LABELS_NAME, dtype), (DENSITY_NAME, np.dtype(np.float32)))
        ]
        made = embed(
            pictures,
            particles,
            tomogram,
            maps[0],
            maps[1],
            voxel_size=voxel_size,
            names=names,
            smoothing=smoothing,
            progress=progress,
        )
        write_json((folder / LABELS_NAME).with_suffix(".json"), {str(i): name for i, name in made.names.items()})
    return made


@contextmanager
def new_map(path: Path, tomogram: Tomogram, dtype: np.dtype[Any]) -> Iterator[NDArray[Any]]:
    """A zero MRC map of a tomogram's shape to fill in, memory-mapped; it appears whole when the block ends well."""
    header = new_header(tomogram.shape, dtype, tomogram.voxel_size, origin=tomogram.volume.origin)
    with replacing(path) as temporary:
        allocate(temporary, HEADER_BYTES + math.prod(tomogram.shape) * dtype.itemsize)
        with temporary.open("r+b") as file:
            file.write(header.tobytes())
        data = np.memmap(temporary, dtype=dtype.newbyteorder("<"), mode="r+", offset=HEADER_BYTES, shape=tomogram.shape)
        yield data
        data.flush()


def check_output(labels: NDArray[np.integer], density: NDArray[np.floating], tomogram: Tomogram, count: int) -> None:
    """Refuse output of another shape, or labels that cannot count so far."""
    if labels.shape != tomogram.shape or density.shape != tomogram.shape:
        raise ValueError(
            f"expected output of the tomogram's shape {tomogram.shape}, got labels of {labels.shape} and a density of "
            f"{density.shape}"
        )
    if count > np.iinfo(labels.dtype).max:
        raise ValueError(f"expected labels that count to {count}, got {labels.dtype}")


def members_of(particles: Particles, tomogram: Tomogram, count: int) -> Particles:
    """The particles of a tomogram that belong to a pattern.

    Raises
    ------
    InputError
        When there is a number without a picture, or a position that is no number.
    """
    inside = particles.of_tomogram(tomogram.name)
    number = inside["pattern"].to_numpy(np.int64)
    if len(number) and not 0 <= number.min() <= number.max() <= count:
        raise InputError(
            f"expected patterns from 0 (none) to {count}, as there are {count} pictures, got {number.min()} to "
            f"{number.max()}; the particles and the pictures are not of one run"
        )
    if not np.isfinite(inside.position).all():
        row = int(np.flatnonzero(~np.isfinite(inside.position).all(axis=1))[0])
        raise InputError(f"expected finite positions in Å, got {inside.position[row].tolist()} in {tomogram.name}")
    return inside.take(number > 0)


def batches(number: NDArray[np.int64], height: NDArray[np.float64]) -> Iterator[tuple[int, NDArray[np.int64]]]:
    """Members of one pattern at a time, few together and all along z."""
    order = np.argsort(height, kind="stable")
    for start in range(0, len(order), _BATCH):
        part = order[start : start + _BATCH]
        for pattern in np.unique(number[part]):
            yield int(pattern), part[number[part] == pattern]


def stamp(
    picture: NDArray[np.floating], voxel_size: float, wanted_voxel_size: float, smoothing: float
) -> NDArray[np.float32]:
    """What is painted of a picture, shape (2, e, e, e): the density over the background, and where, as 0 and 1."""
    mask, background = object_mask(np.asarray(picture, np.float32), voxel_size, smoothing=smoothing)
    both = np.stack([picture - background, mask]).astype(np.float32)
    step = wanted_voxel_size / voxel_size
    return both if abs(step - 1) <= _SAME else np.stack([resampled(one, step) for one in both])


def resampled(box: NDArray[np.float32], step: float) -> NDArray[np.float32]:
    """A box about its centre n // 2 on voxels that are ``step`` times as large, linearly, low-passed where coarser."""
    size = 2 * math.ceil(len(box) / 2 / step) + 1
    seen = ndimage.gaussian_filter(box, 0.5 * math.sqrt(max(step**2 - 1, 0.0)))
    first = centre_index(len(box)) - step * centre_index(size)
    return np.asarray(ndimage.affine_transform(seen, np.full(3, step), first, (size,) * 3, order=1), dtype=np.float32)


def turned(marks: NDArray[np.float32], members: Particles, shifts: NDArray[np.float64]) -> NDArray[np.float32]:
    """What each of n members paints about its nearest voxel, shape (n, e, e, e): 0 where nothing."""
    size = marks.shape[-1] + 2  # room for the shift
    density, mask = (
        sample_rotated(torch.from_numpy(part[None]), members.orientation, shifts, size=size).numpy() for part in marks
    )
    return np.where(mask > 0.5, np.maximum(density, np.finfo(np.float32).tiny), 0).astype(np.float32)


def paint(
    labels: NDArray[np.integer],
    density: NDArray[np.floating],
    box: NDArray[np.float32],
    centre: Sequence[int],
    label: int,
) -> None:
    """Paint one box about a voxel where it is denser than what is there."""
    window, part = overlap(labels.shape, len(box), centre)
    there, mine = density[window], box[part]
    over = mine > there
    there[over] = mine[over]
    labels[window][over] = label


# ----------------------------------------------------------------------------------------------------- interactions


class InteractionSettings(Settings):
    """How neighbours are counted and what they are compared with."""

    contact: float = Field(default=250.0, gt=0)
    """Particles whose positions are at most so far apart in Å are in contact: a ribosome's radius, half a membrane,
    and what picks on a membrane are apart."""
    draws: int = Field(default=999, ge=39)
    """Random placements; p-values below 2 / (draws + 1) come from the tail of a normal distribution."""
    seed: int = 0
    """Seed of the placements."""


@dataclass(frozen=True)
class Interaction:
    """How often members of one pattern have one of another beside them.

    Attributes
    ----------
    pattern, neighbour
        The two patterns.
    placed
        The one of the two that was placed at random: the one that is less clustered by itself.
    count
        Members of ``pattern`` in tomograms that hold both.
    median_distance
        Of those to the nearest member of ``neighbour``, in Å.
    null_distance
        The same under random placement, in Å.
    contact
        Distance in Å up to which members are in contact.
    in_contact, null_in_contact
        Share of the members that are in contact, and under random placement.
    enrichment
        The effect size: members in contact over those expected by chance, half a member added to both; above 1 when
        they seek each other, below when they shun each other.
    p_value
        Probability that chance is as far off, to either side, see :func:`two_sided`.
    q_value
        The false discovery rate at which this pair counts (Benjamini & Hochberg 1995, J R Stat Soc B 57:289).
    """

    pattern: int
    neighbour: int
    placed: int
    count: int
    median_distance: float
    null_distance: float
    contact: float
    in_contact: float
    null_in_contact: float
    enrichment: float
    p_value: float
    q_value: float = 1.0

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)

    def evidence(self, names: Mapping[int, str]) -> str:
        """One line that says what was found.

        >>> found = Interaction(1, 2, 1, 80, 210.0, 402.0, 250.0, 0.625, 0.2, 3.12, 0.001, 0.004)
        >>> found.evidence({1: "ribosome-like", 2: "membrane"})
        'ribosome-like at membrane: 62 % of 80 within 250 Å, by chance 20 % (× 3.1, p = 0.001, q = 0.004)'
        """
        return (
            f"{names[self.pattern]} at {names[self.neighbour]}: {100 * self.in_contact:.0f} % of {self.count} within "
            f"{self.contact:.0f} Å, by chance {100 * self.null_in_contact:.0f} % (× {self.enrichment:.2g}, "
            f"p = {self.p_value:.2g}, q = {self.q_value:.2g})"
        )


def interactions(
    particles: Particles,
    tomograms: Sequence[Tomogram],
    settings: InteractionSettings = InteractionSettings(),
    *,
    regions: Mapping[str, NDArray[np.bool_]] | None = None,
    progress: Progress | None = None,
) -> list[Interaction]:
    """Which patterns neighbour which more than chance has it.

    The null: the members of a pattern are placed anew, uniformly where candidates can be, as far from all other
    particles and from one another as the closest observed ones of each pair of patterns, but patterns no farther than
    most of the contact distance. What is occupied is thus no room in the null either, and exclusion alone is no
    interaction.

    Members on a sheet are one thing rather than many independent ones, and placing them apart would make chance look
    regular. So of a pair that pattern is placed anew whose members crowd each other less, and the other stays as it is.
    Where both crowd, p-values are too small.

    Parameters
    ----------
    particles
        All particles with the column ``pattern``; those of pattern 0 take up room, too.
    tomograms
        Those that the particles name.
    settings
        Contact distance, number of placements, seed.
    regions
        Where candidates can be, by name of the tomogram: a mask of the whole tomogram zyx of any number of voxels,
        such as :func:`candidate_region` gives. By default the box that the particles span.
    progress
        Called with (patterns placed, patterns).

    Returns
    -------
    list of Interaction
        Every ordered pair, a pattern with itself too, that some tomogram holds; the most enriched of the surest first.

    Raises
    ------
    InputError
        When a tomogram is missing, a position is no number, or a region leaves no room for a pattern.
    """
    number = particles["pattern"].to_numpy(np.int64)
    patterns = [int(i) for i in np.unique(number[number > 0])]
    sites = sites_of(particles, tomograms, regions or {})
    apart = exclusions(sites, np.unique(number), _EXCLUDED * settings.contact)
    rng = np.random.default_rng(settings.seed)
    tallies: dict[tuple[int, int], Tally] = {}
    for done, pattern in enumerate(patterns):
        for site in sites:
            place_anew(site, pattern, patterns, apart, settings, rng, tallies)
        if progress is not None:
            progress(done + 1, len(patterns))
    found = [tally.judged(less_clustered(pair, tallies), settings.contact) for pair, tally in tallies.items()]
    if not found:
        return []
    rates = false_discovery_control([one.p_value for one in found])
    found = [Interaction(**{**asdict(one), "q_value": float(q)}) for one, q in zip(found, rates, strict=True)]
    return sorted(found, key=lambda one: (one.p_value, -one.enrichment, one.pattern, one.neighbour))


def candidate_region(particles: Particles, tomogram: Tomogram, radius: float) -> NDArray[np.bool_]:
    """Where candidates can be: what no ball of some radius reaches that holds no candidate.

    For cells that fill only part of a tomogram. It is a morphological closing of the candidates; beyond the outermost
    ones it goes on for the median distance of a candidate to its nearest neighbour. Use all candidates, and a radius of
    at least what neighbouring ones are apart.

    Parameters
    ----------
    particles
        All candidates.
    tomogram
        Where they are.
    radius
        Radius of the balls in Å.

    Returns
    -------
    NDArray[bool], shape (mz, my, mx)
        The whole tomogram in cells of about a quarter of the radius.
    """
    shape = [max(1, round(4 * edge / radius)) for edge in tomogram.volume.extent]
    size = np.asarray(tomogram.volume.extent) / shape
    middles = (np.argwhere(np.ones(shape, dtype=bool)) + 0.5) * size - 0.5 * tomogram.voxel_size
    where = particles.of_tomogram(tomogram.name).position
    near = (nearest_distance(middles, where) <= radius).reshape(shape)
    if near.all():
        return near
    beyond = float(np.median(nearest_distance(where, where, same=True)))
    return np.asarray(ndimage.distance_transform_edt(near, sampling=size) >= radius - beyond)


@dataclass(frozen=True, eq=False)
class Site:
    """One tomogram: its members by pattern, positions in Å, the room in Å³, and random points of it."""

    members: Mapping[int, NDArray[np.float64]]
    volume: float
    points: Callable[[int, np.random.Generator], NDArray[np.float64]]
    name: str


def sites_of(
    particles: Particles, tomograms: Sequence[Tomogram], regions: Mapping[str, NDArray[np.bool_]]
) -> list[Site]:
    """The tomograms that the particles name."""
    sites = []
    for name, tomogram in tomograms_of(particles, tomograms).items():
        inside = particles.of_tomogram(name)
        number = inside["pattern"].to_numpy(np.int64)
        members = {int(i): inside.position[number == i] for i in np.unique(number)}
        region = regions.get(name)
        if region is None:
            low, high = spanned(inside.position, tomogram)
            points, volume = box_points(low, high), float(np.prod(high - low))
        elif region.any():
            size = np.asarray(tomogram.volume.extent) / region.shape
            points, volume = mask_points(region, size, tomogram.voxel_size), float(region.sum() * np.prod(size))
        else:
            raise InputError(f"expected a region of {name} where candidates can be, got an empty one")
        sites.append(Site(members, volume, points, name))
    return sites


def spanned(position: NDArray[np.float64], tomogram: Tomogram) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Lowest and highest corner of the box that n points come from: theirs, and 1 / (n - 1) of its edges beyond.

    Within the tomogram, and all of it where the points span no box.
    """
    low, high = position.min(axis=0), position.max(axis=0)
    end = (np.asarray(tomogram.shape) - 1) * tomogram.voxel_size
    if not (high > low).all():
        return np.minimum(low, 0), np.maximum(high, end)
    beyond = (high - low) / (len(position) - 1)
    return np.maximum(low - beyond, np.minimum(low, 0)), np.minimum(high + beyond, np.maximum(high, end))


def box_points(
    low: NDArray[np.float64], high: NDArray[np.float64]
) -> Callable[[int, np.random.Generator], NDArray[np.float64]]:
    """Uniform points in a box."""
    return lambda count, rng: rng.uniform(low, high, (count, 3))


def mask_points(
    mask: NDArray[np.bool_], size: NDArray[np.float64], voxel_size: float
) -> Callable[[int, np.random.Generator], NDArray[np.float64]]:
    """Uniform points in the cells of a mask; a tomogram begins half a voxel before its first voxel's middle."""
    cells = np.argwhere(mask)
    return lambda count, rng: (
        (cells[rng.integers(len(cells), size=count)] + rng.random((count, 3))) * size - (0.5 * voxel_size)
    )


def exclusions(sites: Sequence[Site], numbers: NDArray[np.int64], largest: float) -> dict[tuple[int, int], float]:
    """How near members of each pair of patterns can come to each other, in Å, patterns at most the largest.

    The closest observed pair is somewhat farther apart than exclusion asks, the more so the fewer there are. Pairs at
    random beyond an exclusion h have their closest distance r at a mean of r³ − h³ = 3 / (4 π × pairs per volume),
    which is taken off.
    """
    apart = {}
    for a in numbers.tolist():
        for b in numbers.tolist():
            nearest, pairs = np.inf, 0.0
            for site in sites:
                if a not in site.members or b not in site.members:
                    continue
                mine, theirs = site.members[a], site.members[b]
                nearest = min(nearest, float(nearest_distance(mine, theirs, same=a == b).min()))
                pairs += (len(mine) * (len(mine) - 1) / 2 if a == b else len(mine) * len(theirs)) / site.volume
            free = nearest**3 - 3 / (4 * math.pi * pairs) if pairs and np.isfinite(nearest) else 0.0
            apart[a, b] = min(max(0.0, free) ** (1 / 3), largest if a and b else np.inf)
    return apart


def nearest_distance(of: NDArray[np.float64], to: NDArray[np.float64], *, same: bool = False) -> NDArray[np.float64]:
    """Distance of each point to the nearest other one, of the same points or of others; infinite where none."""
    distance = np.asarray(cKDTree(to).query(of, k=[2 if same else 1])[0], dtype=np.float64)
    return distance[:, 0]


class Null:
    """What random placements of one pattern say of one ordered pair."""

    def __init__(self, draws: int) -> None:
        self.touching = np.zeros(draws, dtype=np.int64)
        self.distance: list[NDArray[np.float64]] = []


class Tally:
    """What is known of one ordered pair so far, tomogram by tomogram."""

    def __init__(self, pair: tuple[int, int], draws: int) -> None:
        self.pair = pair
        self.count, self.touching = 0, 0
        self.distance: list[NDArray[np.float64]] = []
        self.nulls = {pattern: Null(draws) for pattern in pair}  # by the pattern that is placed anew

    def observe(self, distance: NDArray[np.float64], contact: float) -> None:
        """Add what one tomogram shows."""
        self.count += len(distance)
        self.touching += int((distance <= contact).sum())
        self.distance.append(distance)

    def enrichment(self, placed: int) -> float:
        """Members in contact over those expected, half a member added to both."""
        return (self.touching + 0.5) / (float(self.nulls[placed].touching.mean()) + 0.5)

    def judged(self, placed: int, contact: float) -> Interaction:
        """The verdict on the pair by the placements of one of its patterns, without the q-value."""
        null = self.nulls[placed]
        return Interaction(
            pattern=self.pair[0],
            neighbour=self.pair[1],
            placed=placed,
            count=self.count,
            median_distance=float(np.median(np.concatenate(self.distance))),
            null_distance=float(np.median(np.concatenate(null.distance))),
            contact=contact,
            in_contact=self.touching / self.count,
            null_in_contact=float(null.touching.mean()) / self.count,
            enrichment=self.enrichment(placed),
            p_value=two_sided(self.touching, null.touching),
        )


def two_sided(found: int, null: NDArray[np.integer]) -> float:
    """Probability that chance is as far off as what was found, to either side.

    Twice the smaller of (1 + draws with at least, or at most, as many) / (1 + draws), and 1 at most. Beyond all draws,
    where this is as small as their number allows, however far: the tail of a normal distribution for the square roots
    of the counts (Anscombe 1948, Biometrika 35:246), which spread at least as much as those of rare independent events.
    So a pair counts among thousands of pairs without thousands of draws for each.

    >>> null = np.arange(19)
    >>> two_sided(9, null), two_sided(19, null) <= 0.1, two_sided(400, null) < 1e-6, two_sided(0, null + 1) <= 0.1
    (1.0, True, True, True)
    """
    fewest = min(int((null >= found).sum()), int((null <= found).sum()))
    drawn = min(1.0, 2 * (1 + fewest) / (1 + len(null)))
    if fewest:
        return drawn
    roots = 2 * np.sqrt(null + _ANSCOMBE)
    off = abs(2 * np.sqrt(found + _ANSCOMBE) - roots.mean()) / max(float(roots.std()), 1.0)
    return min(drawn, float(2 * norm.sf(off)))


def less_clustered(pair: tuple[int, int], tallies: Mapping[tuple[int, int], Tally]) -> int:
    """The pattern of a pair whose members have fewer of their own kind in contact than chance has it."""
    return min(pair, key=lambda one: tallies[one, one].enrichment(one) if (one, one) in tallies else 1.0)


_POOL, _POOL_EACH = 20_000, 20
"""Random points with room for a member, from which all placements of a pattern are drawn: at least so many, and so
many for each member."""
_TRIES = 50
"""Rounds of proposals before a tomogram counts as full."""
_BLOCK = 2_000_000
"""Members placed together, which decides the memory."""
_MEDIANS = 50
"""Placements from which the median distance is taken."""


def place_anew(
    site: Site,
    pattern: int,
    patterns: Sequence[int],
    apart: Mapping[tuple[int, int], float],
    settings: InteractionSettings,
    rng: np.random.Generator,
    tallies: dict[tuple[int, int], Tally],
) -> None:
    """Place the members of one pattern in one tomogram anew, many times, and add what that says of its pairs."""
    mine = site.members.get(pattern)
    if mine is None:
        return
    pool = room(site, pattern, apart, max(_POOL, _POOL_EACH * len(mine)), rng)
    others = {i: site.members[i] for i in patterns if i in site.members and (i != pattern or len(mine) > 1)}
    to_pool = {i: nearest_distance(pool, theirs) for i, theirs in others.items() if i != pattern}
    for other, theirs in others.items():
        for pair in ((pattern, other), (other, pattern)):
            tallies.setdefault(pair, Tally(pair, settings.draws))
        tallies[pattern, other].observe(nearest_distance(mine, theirs, same=other == pattern), settings.contact)
    block = max(1, _BLOCK // len(mine))
    for start in range(0, settings.draws, block):
        count = min(block, settings.draws - start)
        draws = np.stack([placement(pool, len(mine), apart[pattern, pattern], rng) for _ in range(count)])
        some = draws[:_MEDIANS] if start == 0 else draws[:0]
        now = slice(start, start + count)
        for other, theirs in others.items():
            null = tallies[pattern, other].nulls[pattern]
            if other == pattern:
                distance = np.stack([nearest_distance(pool[rows], pool[rows], same=True) for rows in draws])
                null.touching[now] += (distance <= settings.contact).sum(axis=1)
                null.distance.append(distance[: len(some)].ravel())
            else:
                null.touching[now] += (to_pool[other] <= settings.contact)[draws].sum(axis=1)
                null.distance.append(to_pool[other][some].ravel())
                back = tallies[other, pattern].nulls[pattern]
                back.touching[now] += touched_by(draws, pool, theirs, settings.contact)
                back.distance += [nearest_distance(theirs, pool[rows]) for rows in some]


def room(
    site: Site, pattern: int, apart: Mapping[tuple[int, int], float], count: int, rng: np.random.Generator
) -> NDArray[np.float64]:
    """Random points of a tomogram where a member of a pattern has room beside all particles of the others.

    Raises
    ------
    InputError
        When there is none.
    """
    obstacles = [
        (cKDTree(where), apart[pattern, other])
        for other, where in site.members.items()
        if other != pattern and apart[pattern, other] > 0
    ]
    found, total = [], 0
    for _ in range(_TRIES):
        points = site.points(count, rng)
        for tree, distance in obstacles:
            points = points[np.isinf(tree.query(points, distance_upper_bound=distance)[0])]
        found.append(points)
        total += len(points)
        if total >= count:
            break
    if not total:
        raise InputError(
            f"expected room for pattern {pattern} beside the other particles of {site.name}, got none; "
            "give a larger region"
        )
    return np.concatenate(found)[:count]


def placement(pool: NDArray[np.float64], count: int, distance: float, rng: np.random.Generator) -> NDArray[np.int64]:
    """Rows of points at random, each at least so far from those before it; when no room is left the rest lie anywhere.

    One after the other in random order, as in random sequential addition (Widom 1966, J Chem Phys 44:3888).
    """
    kept = np.empty(0, dtype=np.int64)
    order = rng.permutation(len(pool)) if distance > 0 else rng.choice(len(pool), count, replace=len(pool) < count)
    if distance <= 0:
        return order
    start, width = 0, 2 * count
    while len(kept) < count and start < len(order):
        rows = np.concatenate([kept, order[start : start + width]])
        kept = rows[unhindered(pool[rows], distance)]
        start += width
    spare = order[: max(0, count - len(kept))]
    return np.resize(np.concatenate([kept, spare]), count)


def unhindered(points: NDArray[np.float64], distance: float) -> NDArray[np.bool_]:
    """Which points stay when each, in their order, removes the later ones that are nearer than a distance."""
    pairs = cKDTree(points).query_pairs(distance, output_type="ndarray")
    pairs = pairs[np.lexsort((pairs[:, 1], pairs[:, 0]))]
    alive = [True] * len(points)
    for first, later in pairs.tolist():  # when the pairs of a point come, all before it are decided
        if alive[first]:
            alive[later] = False
    return np.array(alive)


def touched_by(
    draws: NDArray[np.int64], pool: NDArray[np.float64], others: NDArray[np.float64], contact: float
) -> NDArray[np.int64]:
    """How many of the others have some placed member in contact, for every placement, shape (draws,)."""
    rows: Sequence[list[int]] = list(cKDTree(pool).query_ball_point(others, contact))  # type: ignore[arg-type]
    owner = np.repeat(np.arange(len(others)), [len(row) for row in rows])
    near = np.concatenate([np.asarray(row, dtype=np.int64) for row in rows])
    reached = csr_array((np.ones(len(near), np.int32), (near, owner)), shape=(len(pool), len(others)))
    width = draws.shape[1]
    placed = csr_array(
        (np.ones(draws.size, np.int32), draws.ravel(), np.arange(0, draws.size + 1, width)),
        shape=(len(draws), len(pool)),
    )
    return np.diff((placed @ reached).indptr).astype(np.int64)
