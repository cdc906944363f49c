"""A known structure fitted to a map: how it lies in it, in which hand, and how far the two agree.

The template is the structure rendered on the map's grid. All rotations and shifts are searched in both hands at low
frequency, the best refined up to the resolution asked for. What counts is the correlation inside one soft mask around
the placed template, and the Fourier shell correlation there.

Maps are bright, zyx, cubic, their centre at voxel D // 2.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt
from scipy.spatial.transform import Rotation

from tomotif.core import InputError
from tomotif.core.geometry import radius_grid
from tomotif.ops.align import Band, Reference, Search, SearchPlan
from tomotif.ops.fourier import frequency_grid, low_pass
from tomotif.ops.fsc import fsc, masked, randomise_phases, resolution_at
from tomotif.ops.rotate import rotate_volumes

Map = Float[np.ndarray, "d d d"]
Hand = Literal["right", "mirrored", "undecided"]

THRESHOLD = 0.5
"""Fourier shell correlation with a known map at which the resolution is read."""
HAND_MARGIN = 0.01
"""Correlations of the two hands that differ by less than this do not decide the hand."""
ENVELOPE = 0.15
"""The envelope lies where the low-passed template has this share of its maximum."""
COARSE = 6.0
"""Highest frequency of the grid search in cycles a box: at it a turn by half the grid's spacing hardly shows."""
LOWEST_BAND = 3.0
"""Fewest cycles a box that the resolution must allow."""
_AMPLITUDE_FLOOR = 1e-4
"""Share of the largest amplitude below which a template's shell is not raised further."""


@dataclass(frozen=True, eq=False)
class Fit:
    """How a template lies in a map.

    Attributes
    ----------
    name
        Of the template.
    rotation, shift_px
        Turn the template about voxel D // 2 (acts on zyx vectors), then shift it (zyx, voxels): it lies on the map.
        They are those of the hand that fits better; when that is the mirrored one, the template is mirrored along z
        about its centre before.
    correlation, mirror_correlation
        Correlation of map and template, and of map and mirrored template, each in its best pose, -1 to 1.
    frequencies, curve
        Fourier shell correlation of the map and the placed template inside the mask: 1/Å and -1 to 1.
    fsc05
        Å at which the curve falls below 0.5; from two voxels to the box's edge.
    placed
        The better hand's template where it lies in the map, with the map's spectrum when that was matched.
    mask
        Inside which all this was measured, 0 to 1.
    """

    name: str
    rotation: Rotation
    shift_px: NDArray[np.float64]
    correlation: float
    mirror_correlation: float
    frequencies: NDArray[np.float64]
    curve: NDArray[np.float64]
    fsc05: float
    placed: NDArray[np.float32]
    mask: NDArray[np.float32]

    @property
    def score(self) -> float:
        """Correlation of the hand that fits better."""
        return max(self.correlation, self.mirror_correlation)

    @property
    def hand_margin(self) -> float:
        """By how much the template correlates better than its mirror image; negative when it does worse."""
        return self.correlation - self.mirror_correlation

    @property
    def mirrored(self) -> bool:
        """Whether pose, curve and placed template are those of the mirrored template."""
        return self.mirror_correlation > self.correlation

    @property
    def hand(self) -> Hand:
        """Which hand the map has: the template's, the other, or undecided when the two differ by less than 0.01."""
        if abs(self.hand_margin) < HAND_MARGIN:
            return "undecided"
        return "mirrored" if self.mirrored else "right"


@dataclass(frozen=True, eq=False)
class Placement:
    """Where a search found a template in a map, in both hands; the second of each pair is the mirrored template.

    Attributes
    ----------
    name
        Of the template.
    rotations, shifts_px
        As of :class:`Fit`, two rotations and shape (2, 3).
    band_correlation
        Of the two with the map, over the whole box and all frequencies searched.
    placed
        The two as they lie in the map.
    support
        Soft mask around both, 0 to 1.
    """

    name: str
    rotations: Rotation
    shifts_px: NDArray[np.float64]
    band_correlation: tuple[float, float]
    placed: tuple[NDArray[np.float32], NDArray[np.float32]]
    support: NDArray[np.float32]


def fit_map(
    volume: Map,
    template: Map,
    voxel_size: float,
    *,
    resolution: float,
    name: str = "",
    support: Map | None = None,
    region: Map | None = None,
    match_spectrum: bool = True,
    plan: SearchPlan | None = None,
) -> Fit:
    """Find the rigid motion that puts a template onto a map, in both hands, and measure how far they agree.

    Parameters
    ----------
    volume
        The map, of the same shape as the template.
    template
        The known structure with its centre at voxel D // 2, rendered more finely than the resolution.
    voxel_size
        Edge of a voxel in Å.
    resolution
        Å: rotations and shifts are searched in frequencies up to 1 / resolution, and the correlation is that of maps
        under the Gaussian that falls to 1/e there.
    name
        Of the template.
    support
        Soft mask around the template, 0 to 1; by default :func:`envelope`.
    region
        Soft mask of what the template has to explain besides its own place, see :func:`judge`.
    match_spectrum
        Give the template the map's radial amplitude spectrum before they are compared. An average carries the
        contrast transfer function, the fall-off that errors of the poses cause, and the noise that is left; a rendered
        structure carries none. Unmatched, the correlation tells the shapes of two spectra as much as the shapes of two
        particles. Phases, and with them the Fourier shell correlation, are not touched.
    plan
        How finely and how far is searched; by default :func:`default_plan`.

    Raises
    ------
    InputError
        When shapes differ, a map is constant, or the box holds fewer than three waves of the resolution.
    """
    found = find_template(
        volume,
        template,
        voxel_size,
        resolution=resolution,
        name=name,
        support=support,
        match_spectrum=match_spectrum,
        plan=plan,
    )
    return judge(volume, found, voxel_size, resolution=resolution, region=region, match_spectrum=match_spectrum)


def find_template(
    volume: Map,
    template: Map,
    voxel_size: float,
    *,
    resolution: float,
    name: str = "",
    support: Map | None = None,
    match_spectrum: bool = True,
    plan: SearchPlan | None = None,
) -> Placement:
    """The search of :func:`fit_map`, its parameters as there.

    It needs no mask: what surrounds the particle counts the same in all poses. The mirrored map stands for the mirrored
    template, so that both hands are searched with the same turned references.
    """
    if volume.shape != template.shape:
        raise InputError(f"expected map and template of one shape, got {volume.shape} and {template.shape}")
    size = len(volume)
    highest = highest_wave(size, voxel_size, resolution)
    reference = Reference.of(with_spectrum_of(volume, template) if match_spectrum else template)
    plan = plan or default_plan(size)
    plan = replace(plan, coarse=min(plan.coarse, highest), fine=highest)
    search = Search.prepare(reference, Band.measured(size, None, highest), plan)
    poses = search(np.stack([volume, mirrored(volume)]).astype(np.float32))

    around = envelope(template, voxel_size, resolution) if support is None else support.astype(np.float32)
    around = rotate_volumes(torch.from_numpy(np.stack([around, around])), poses.rotations, poses.shifts_px).numpy()
    placed = [place(reference, poses.rotations[i], poses.shifts_px[i]) for i in (0, 1)]
    other = mirrored_pose(poses.rotations[1], poses.shifts_px[1])
    return Placement(
        name,
        Rotation.concatenate([poses.rotations[0], other[0]]),
        np.stack([poses.shifts_px[0], other[1]]),
        (float(poses.score[0]), float(poses.score[1])),
        (placed[0], mirrored(placed[1])),
        np.clip(np.maximum(around[0], mirrored(around[1])), 0, 1),
    )


def judge(
    volume: Map,
    found: Placement,
    voxel_size: float,
    *,
    resolution: float,
    region: Map | None = None,
    match_spectrum: bool = True,
) -> Fit:
    """How far a map and a placed template agree inside one soft mask, for both hands.

    Parameters
    ----------
    volume, voxel_size, resolution, match_spectrum
        As of :func:`fit_map`; the spectra are matched inside the mask.
    found
        The template as it was found.
    region
        Soft mask that is joined to the template's own. When several templates are compared, give them all the place
        of the likeliest: inside its own mask alone, a small template only has to explain a piece of the map as large
        as itself, and among the many places of a noisy map it finds one that it correlates with better than the true
        structure does with the whole.
    """
    mask = found.support if region is None else np.maximum(found.support, region).astype(np.float32)
    placed = [with_spectrum_of(volume, one, mask) if match_spectrum else one for one in found.placed]
    seen = low_pass(volume, voxel_size, resolution)
    hands = [masked_correlation(seen, low_pass(one, voxel_size, resolution), mask) for one in placed]
    best = int(hands[1] > hands[0])
    frequencies, curve = fsc(volume, placed[best], voxel_size, mask)
    return Fit(
        found.name,
        found.rotations[best],
        found.shifts_px[best],
        hands[0],
        hands[1],
        frequencies,
        curve,
        resolution_at(frequencies, curve, THRESHOLD),
        placed[best],
        mask,
    )


def default_plan(box_px: int, rotations: int = 2304, reach: float = 1 / 8) -> SearchPlan:
    """A search at low frequency whose grid of shifts grows with the box.

    Parameters
    ----------
    box_px
        Edge of the box in voxels.
    rotations
        Rotations of the first grid.
    reach
        Largest shift along each axis as a fraction of the box's edge.
    """
    return SearchPlan(
        rotations=rotations,
        screening=max(1, rotations // 4),
        shift_px=reach * box_px,
        shift_step_px=box_px / 16,
        coarse=COARSE,
        candidates=16,
        kept=3,
    )


def highest_wave(box_px: int, voxel_size: float, resolution: float) -> float:
    """Cycles a box at 1 / resolution, below the Nyquist frequency.

    Raises
    ------
    InputError
        When these are fewer than three: too few to tell shapes apart.
    """
    waves = box_px * voxel_size / resolution
    if waves < LOWEST_BAND:
        raise InputError(
            f"expected a box of at least {LOWEST_BAND:g} × the resolution, got {box_px} voxels of {voxel_size:g} Å for "
            f"{resolution:g} Å; give a larger box or a finer --resolution"
        )
    return min(waves, box_px / 2)


def mirrored(volume: Map) -> NDArray[np.float32]:
    """The mirror image along z, about the centre D // 2.

    >>> mirrored(np.arange(4.0)[:, None, None] * np.ones((4, 4, 4)))[:, 0, 0].tolist()
    [0.0, 3.0, 2.0, 1.0]
    """
    flipped = volume[::-1]
    return np.ascontiguousarray(flipped if len(volume) % 2 else np.roll(flipped, 1, axis=0), dtype=np.float32)


def mirrored_pose(rotation: Rotation, shift: Float[np.ndarray, " 3"]) -> tuple[Rotation, NDArray[np.float64]]:
    """The pose of a mirrored template in a map, from that of the template in the mirrored map."""
    z, y, x, w = rotation.as_quat()
    return Rotation.from_quat([z, -y, -x, w]), shift * np.array([-1.0, 1.0, 1.0])


def place(reference: Reference, rotation: Rotation, shift: Float[np.ndarray, " 3"]) -> NDArray[np.float32]:
    """The turned and shifted reference as a map, without its mean and what lies beyond the Nyquist frequency."""
    band = Band.measured(reference.box_px, None, reference.box_px / 2)
    wave = band.wave @ torch.from_numpy(rotation.as_matrix().astype(np.float32))  # R⁻¹ k
    phases = band.phases(torch.from_numpy(shift[None].astype(np.float32)))[0]
    return band.volume(reference.sample(wave, gradient=False)[..., 0] * phases)


def with_spectrum_of(volume: Map, template: Map, mask: Map | None = None) -> NDArray[np.float32]:
    """The template under a radial filter that gives it the map's amplitude in every shell.

    Parameters
    ----------
    volume, template
        Map and template, one shape.
    mask
        Weights 0 to 1 inside which the amplitudes are those compared.
    """
    radius = frequency_grid((len(volume),) * 3) * len(volume)
    wanted, given = (shell_amplitudes(masked(one, mask), radius) for one in (volume, template))
    gain = wanted / np.maximum(given, max(_AMPLITUDE_FLOOR * given[1:].max(), 1e-30))
    gain[0] = gain[1]  # the mean's amplitude is another matter
    spectrum = np.fft.rfftn(template) * np.interp(radius, np.arange(len(gain)), gain)
    return np.fft.irfftn(spectrum, s=template.shape, axes=(0, 1, 2)).astype(np.float32)


def shell_amplitudes(volume: Map, radius: Float[np.ndarray, "d d h"]) -> NDArray[np.float64]:
    """Root-mean-square Fourier amplitude of each shell, one cycle a box wide."""
    shell = np.rint(radius).astype(np.int64).ravel()
    power = np.abs(np.fft.rfftn(volume)).ravel() ** 2
    return np.asarray(np.sqrt(np.bincount(shell, power) / np.maximum(np.bincount(shell), 1)), dtype=np.float64)


def envelope(template: Map, voxel_size: float, resolution: float) -> NDArray[np.float32]:
    """A soft mask around a template: what is dense at the resolution, grown by a quarter of it, with a cosine edge.

    Parameters
    ----------
    template
        Bright density.
    voxel_size
        Edge of a voxel in Å.
    resolution
        Å; the edge is half as wide.
    """
    smooth = low_pass(template, voxel_size, resolution)
    outside = distance_transform_edt(smooth <= ENVELOPE * smooth.max()) * voxel_size
    share = np.clip((outside - resolution / 4) / (resolution / 2), 0.0, 1.0)
    return (0.5 * (1.0 + np.cos(np.pi * share))).astype(np.float32)


def masked_correlation(a: Map, b: Map, mask: Map) -> float:
    """Correlation of two maps over the voxels of a mask, each counting by its weight.

    >>> ball = solid_ball(2.0, 8)
    >>> round(masked_correlation(ball, 3 * ball + 1, np.ones((8, 8, 8))), 6)
    1.0
    """
    weight = mask.astype(np.float64) / mask.sum()
    first, second = (one - (one * weight).sum() for one in (a, b))
    lengths = np.sqrt((first**2 * weight).sum() * (second**2 * weight).sum())
    return float((first * second * weight).sum() / max(lengths, 1e-30))


def radially_averaged(volume: Map) -> NDArray[np.float32]:
    """Every voxel replaced by the mean at its distance from the centre: all that a map says about size and no more."""
    radius = radius_grid(volume.shape)
    low = np.floor(radius).astype(np.int64)
    share = radius - low
    # each voxel counts for the two whole radii it lies between
    at = np.concatenate([low.ravel(), low.ravel() + 1])
    weight = np.concatenate([1 - share.ravel(), share.ravel()])
    total = np.bincount(at, weight * np.tile(volume.ravel(), 2))
    mean = total / np.maximum(np.bincount(at, weight), 1e-12)
    return np.interp(radius, np.arange(len(mean)), mean).astype(np.float32)


def solid_ball(radius_px: float, box_px: int) -> NDArray[np.float32]:
    """A ball of ones about the centre D // 2, its edge one voxel wide.

    >>> solid_ball(2.0, 8)[4, 4].tolist()
    [0.0, 0.0, 0.5, 1.0, 1.0, 1.0, 0.5, 0.0]
    """
    return np.clip(radius_px + 0.5 - radius_grid((box_px,) * 3), 0.0, 1.0).astype(np.float32)


def phase_randomised(volume: Map, rng: np.random.Generator, support: Map | None = None) -> NDArray[np.float32]:
    """Something of the map's size and amplitudes that it is not: all phases random, restricted to the map's support.

    Parameters
    ----------
    volume
        Bright density.
    rng
        Decides the phases.
    support
        Soft mask 0 to 1 that keeps the size; without it the density lies all over the box.
    """
    random = randomise_phases(volume, 1, rng)
    return (random if support is None else random * support).astype(np.float32)
