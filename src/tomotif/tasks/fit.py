"""Fit: Volume (an average) + Structures → how each lies in the map, in which hand, and how well: best first.

The science happens in :mod:`tomotif.ops.fit`. Every structure is rendered on the map's grid and searched in both hands.
All are judged inside masks that contain the place of the one that correlates best with the whole box, so that a small
structure cannot win by explaining a small piece. Controls made from the best structure (a ball of its size, its radial
average, a copy with random phases) show what a map that says little would give too. Not here: flexible fitting, several
copies in one map, and structures of which the map shows only a part.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from tomotif.core import InputError, Progress, Settings, Structure, Volume
from tomotif.core.geometry import centre_index

if TYPE_CHECKING:  # torch takes its time to import, and who only reads the settings should not wait for it
    from tomotif.ops.fit import Fit, Placement

VOXELS_PER_RESOLUTION = 2.5
FINEST_USUAL = 40.0
LARGEST_EDGE = 512
WORKING_BOX = 64
"""Larger boxes are compared on a coarser grid of this many voxels, or as many as the resolution needs."""
OUTSIDE = 0.05
"""A structure of which a larger share lies outside the sphere in the box is not fitted."""
CLOSE = 0.02
"""Correlations that differ by less than this hardly tell two templates apart."""
CONTROLS = {
    "ball": "a ball of its size",
    "radial_average": "its own radial average",
    "random_phases": "random density of its size and spectrum",
}


class FitSettings(Settings):
    """How structures are fitted to a map, and how the fits are judged."""

    resolution: Annotated[float, Field(gt=0)] | None = None
    """Å up to which map and structures are compared; by default 40, or 2.5 voxels where that is more."""
    rotations: int = Field(default=2304, ge=60)
    """Rotations of the first grid over all orientations, 19° apart by default; the best are refined."""
    max_shift: Annotated[float, Field(gt=0)] | None = None
    """Largest shift along each axis in Å from the map's centre; by default an eighth of the box's edge."""
    match_spectrum: bool = True
    """Whether structures get the map's radial amplitude spectrum first, which carries CTF, pose errors and noise."""
    controls: bool = True
    """Whether a ball, the radial average and a phase-randomised copy of the best structure are fitted as well."""
    seed: int = 0
    """Seed of the random phases."""


@dataclass(frozen=True, eq=False)
class Fits:
    """What came of fitting structures to one map.

    Attributes
    ----------
    fits
        Best first.
    controls
        Fits of what was made from the best structure, named ``ball``, ``radial_average`` and ``random_phases``.
    resolution
        Å up to which was compared.
    voxel_size
        Edge in Å of the voxels on which was compared, and in which the fits' shifts count.
    skipped
        Names of structures that do not fit into the box.
    """

    fits: tuple[Fit, ...]
    controls: tuple[Fit, ...]
    resolution: float
    voxel_size: float
    skipped: tuple[str, ...]

    @property
    def best(self) -> Fit:
        """The fit with the highest correlation."""
        return self.fits[0]

    def margin(self, rank: int) -> float | None:
        """By how much a fit (0 is the best) correlates better than the next, None for the last."""
        following = self.fits[rank + 1 : rank + 2]
        return self.fits[rank].score - following[0].score if following else None

    def findings(self) -> list[str]:
        """What the fits say, a sentence each: which fits best, in which hand, and what the map cannot tell."""
        best, margin = self.best, self.margin(0)
        second = "" if margin is None else f", {margin:.3f} above {self.fits[1].name}"
        hands = {
            "right": f"The map has its hand: the mirror image correlates {best.hand_margin:.3f} less.",
            "mirrored": f"The map has the other hand: the mirror image correlates {-best.hand_margin:.3f} more.",
            "undecided": f"Its hand is undecided: the mirror image differs by {abs(best.hand_margin):.3f}.",
        }
        lines = [f"{best.name} fits best: correlation {best.score:.3f}{second}.", hands[best.hand]]
        if margin is not None and margin < CLOSE:
            lines.append(f"The map hardly tells {best.name} from {self.fits[1].name}.")
        return lines + [line for line in map(self._told_apart, self.controls) if line]

    def _told_apart(self, control: Fit) -> str:
        """A sentence when a control fits as well as the best structure, or nearly; else empty."""
        lead = self.best.score - control.score
        if lead >= CLOSE:
            return ""
        how = "does not tell" if lead <= 0 else "hardly tells"
        return f"The map {how} {self.best.name} from {CONTROLS[control.name]} (correlation {control.score:.3f})."

    def as_dict(self) -> dict[str, Any]:
        """Everything but the maps, as plain JSON values."""
        rows = [self._entry(fit) | {"margin_to_next": rounded(self.margin(i))} for i, fit in enumerate(self.fits)]
        return {
            "resolution_A": round(self.resolution, 3),
            "voxel_size_A": round(self.voxel_size, 5),
            "fits": [{"rank": i + 1, **row} for i, row in enumerate(rows)],
            "controls": [self._entry(fit) for fit in self.controls],
            "skipped": list(self.skipped),
            "findings": self.findings(),
        }

    def _entry(self, fit: Fit) -> dict[str, Any]:
        return {
            "structure": fit.name,
            "correlation": rounded(fit.correlation),
            "mirror_correlation": rounded(fit.mirror_correlation),
            "hand": fit.hand,
            "mirrored": fit.mirrored,
            "fsc05_A": round(fit.fsc05, 2),
            "rotation_zyx": fit.rotation.as_matrix().round(6).tolist(),
            "shift_zyx_A": (fit.shift_px * self.voxel_size).round(3).tolist(),
            "fsc": {"frequency": fit.frequencies.round(8).tolist(), "fsc": fit.curve.round(6).tolist()},
        }


def rounded(value: float | None) -> float | None:
    """Four decimals.

    >>> rounded(0.123456), rounded(None)
    (0.1235, None)
    """
    return None if value is None else round(value, 4)


def fit(
    volume: Volume,
    structures: Sequence[Structure],
    settings: FitSettings | None = None,
    *,
    progress: Progress | None = None,
) -> Fits:
    """Fit every structure to a map and rank them.

    Parameters
    ----------
    volume
        A map of one particle near its middle, bright; of any shape, it is made a cube about its centre n // 2.
    structures
        With names that differ.
    settings
        Resolution, how finely is searched, controls.
    progress
        Called with the number of templates done and of all.

    Raises
    ------
    InputError
        When the map is too large or too small for the resolution, no structure fits into it, or two have one name.
    """
    from tomotif.ops.fit import default_plan, find_template, highest_wave, judge

    settings = settings or FitSettings()
    names = [structure.name for structure in structures]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise InputError(f"expected every structure to have its own name, got {twice[0]!r} twice; rename one file")
    resolution = compared_resolution(volume, settings)
    box, voxel_size = as_cube(volume, resolution)
    highest_wave(len(box), voxel_size, resolution)
    kept, skipped = fitting_into(structures, len(box) * voxel_size / 2)
    plan = default_plan(len(box), settings.rotations, shift_share(settings, len(box) * voxel_size))
    how: Any = {"resolution": resolution, "match_spectrum": settings.match_spectrum}
    report = counted(progress, len(kept) + (len(CONTROLS) if settings.controls else 0))

    def find(name: str, template: NDArray[np.float32], support: NDArray[np.float32] | None = None) -> Placement:
        found = find_template(box, template, voxel_size, name=name, support=support, plan=plan, **how)
        report()
        return found

    placements = [find(s.name, rendered(s, len(box), voxel_size)) for s in kept]
    region = max(placements, key=lambda found: max(found.band_correlation)).support
    fits = [judge(box, found, voxel_size, region=region, **how) for found in placements]
    fits.sort(key=lambda one: -one.score)
    decoys = []
    if settings.controls:
        best = next(s for s in kept if s.name == fits[0].name)
        for name, (template, support) in controls(best, len(box), voxel_size, resolution, settings.seed).items():
            decoys.append(judge(box, find(name, template, support), voxel_size, region=region, **how))
    return Fits(tuple(fits), tuple(decoys), resolution, voxel_size, tuple(skipped))


def compared_resolution(volume: Volume, settings: FitSettings) -> float:
    """Å up to which map and structures are compared.

    The usual 40 Å is what averages from cells reach: complexes differ there, and beyond it most such maps are noise.
    Coarse voxels need 2.5 a wave, which keeps away from the Nyquist frequency, where interpolation has done its harm.
    """
    finest = 2 * volume.voxel_size
    if settings.resolution is None:
        return max(FINEST_USUAL, VOXELS_PER_RESOLUTION * volume.voxel_size)
    if settings.resolution < finest:
        raise InputError(
            f"expected a resolution of at least two voxels ({finest:g} Å), got {settings.resolution:g} Å; raise "
            "--resolution"
        )
    return settings.resolution


def shift_share(settings: FitSettings, edge: float) -> float:
    """Largest shift as a fraction of the box's edge (Å), at most a half."""
    return 1 / 8 if settings.max_shift is None else min(settings.max_shift / edge, 0.5)


def as_cube(volume: Volume, resolution: float) -> tuple[NDArray[np.float32], float]:
    """The map as a cube of an even number of voxels about its centre, and their size in Å.

    Missing sides are filled with the mean of the map's outer faces. Boxes of more than 64 voxels come on a coarser
    grid, cut out of their Fourier transform; it keeps 2.5 voxels a wave of the resolution.
    """
    check_size(volume)
    data = np.asarray(volume.data, dtype=np.float32)
    edge = even(max(data.shape))
    before = [centre_index(edge) - centre_index(n) for n in data.shape]
    widths = [(b, edge - n - b) for b, n in zip(before, data.shape, strict=True)]
    cube = np.pad(data, widths, constant_values=float(outer_level(data)))
    needed = even(int(np.ceil(VOXELS_PER_RESOLUTION * edge * volume.voxel_size / resolution)))
    size = min(edge, max(WORKING_BOX, needed))
    return (cube, volume.voxel_size) if size == edge else (coarser(cube, size), volume.voxel_size * edge / size)


def check_size(volume: Volume) -> None:
    """Refuse a map that is larger than the average of a particle is, before it is read."""
    if max(volume.shape) > LARGEST_EDGE:
        raise InputError(
            f"expected a map of one particle, at most {LARGEST_EDGE} voxels wide, got "
            f"{' × '.join(map(str, volume.shape))}; cut the particle out, or bin the map"
        )


def even(count: int) -> int:
    """The next even number.

    >>> even(31), even(32)
    (32, 32)
    """
    return count + count % 2


def outer_level(data: NDArray[np.float32]) -> float:
    """Mean of a map's outer faces."""
    faces = [np.take(data, (0, -1), axis=axis).ravel() for axis in range(3)]
    return float(np.concatenate(faces).mean())


def coarser(cube: NDArray[np.float32], size: int) -> NDArray[np.float32]:
    """The cube on a grid of fewer voxels, without the frequencies that it cannot hold; both edges even.

    >>> wave = np.cos(2 * np.pi * np.arange(8) / 8)[:, None, None] * np.ones((8, 8, 8))
    >>> bool(np.allclose(coarser(wave, 4)[:, 0, 0], [1, 0, -1, 0], atol=1e-6))
    True
    """
    spectrum = np.fft.rfftn(cube)
    waves = np.fft.fftfreq(size, 1 / size).astype(int)
    kept = spectrum[np.ix_(waves, waves, np.arange(size // 2 + 1))]
    for axis in range(3):  # at the Nyquist frequency a wave and its opposite would fall together
        kept[(slice(None),) * axis + (size // 2,)] = 0
    return (np.fft.irfftn(kept, s=(size,) * 3, axes=(0, 1, 2)) * (size / len(cube)) ** 3).astype(np.float32)


def fitting_into(structures: Sequence[Structure], radius: float) -> tuple[list[Structure], list[str]]:
    """Structures that lie in a sphere of this radius in Å but for a twentieth, and the names of the others.

    Raises
    ------
    InputError
        When there is none.
    """
    kept = [structure for structure in structures if share_outside(structure, radius) <= OUTSIDE]
    skipped = [structure.name for structure in structures if structure not in kept]
    if not kept:
        given = ", ".join(skipped) if skipped else "none"
        raise InputError(
            f"expected a structure that lies in the map's box, a sphere of radius {radius:.0f} Å, got {given}; give a "
            "larger map or smaller structures"
        )
    return kept, skipped


def share_outside(structure: Structure, radius: float) -> float:
    """Share of a structure's electrons farther than this from its centre of mass."""
    distance = np.linalg.norm(structure.positions - structure.centre_of_mass, axis=1)
    return float(structure.weights[distance > radius].sum() / structure.weights.sum())


def rendered(structure: Structure, box_px: int, voxel_size: float) -> NDArray[np.float32]:
    """The structure as finely as the grid allows; it is low-passed like the map later."""
    from tomotif.ops.density import structure_density

    return structure_density(structure, voxel_size=voxel_size, resolution=2 * voxel_size, shape=(box_px,) * 3)


def controls(
    structure: Structure, box_px: int, voxel_size: float, resolution: float, seed: int
) -> dict[str, tuple[NDArray[np.float32], NDArray[np.float32] | None]]:
    """Templates that are not the structure but share its size, each with its support where it is not its own."""
    from tomotif.ops.fit import envelope, phase_randomised, radially_averaged, solid_ball

    template = rendered(structure, box_px, voxel_size)
    support = envelope(template, voxel_size, resolution)
    radius = np.sqrt(5 / 3) * structure.radius_of_gyration  # of the ball that has this radius of gyration
    random = phase_randomised(template, np.random.default_rng(seed), support)
    made = (solid_ball(radius / voxel_size, box_px), None), (radially_averaged(template), None), (random, support)
    return dict(zip(CONTROLS, made, strict=True))


def placed_density(structure: Structure, found: Fit, volume: Volume, fits: Fits) -> NDArray[np.float32]:
    """A fitted structure on the map's own grid at the compared resolution, electrons/Å³; mirrored where that fits."""
    from tomotif.ops.density import structure_density

    centred = structure.centred()
    flip = np.array([-1, 1, 1], dtype=np.float32)
    return structure_density(
        replace(centred, positions=centred.positions * flip) if found.mirrored else centred,
        voxel_size=volume.voxel_size,
        resolution=fits.resolution,
        shape=volume.shape,
        rotation=found.rotation,
        shift=found.shift_px * fits.voxel_size,
    )


def counted(progress: Progress | None, total: int) -> Callable[[], None]:
    """A function that counts one more done and tells it to ``progress``."""
    done = 0

    def report() -> None:
        nonlocal done
        done += 1
        if progress is not None:
            progress(done, total)

    return report
