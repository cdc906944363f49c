"""How close simulated tomograms come to a real one: spectrum, contrast and spacing inside a cell.

The real tomogram is the part of a *Mycoplasma pneumoniae* cell that comes with tomotif (20 Å voxels); the simulated
ones are of the preset ``mycoplasma``. Both are made bright and z-scored within the cell, and the same numbers are taken
from both: the radial power spectrum inside the measured wedge (:func:`spectrum`, :func:`spectrum_error`), the deviation
of local means (:func:`local_contrast`), and the distance from each pick of our own picker to its nearest neighbour
(:func:`neighbour_distances`). Two yardsticks stand beside: ``floor`` compares both halves of the real cell, and
``plain`` is a tomogram of six complexes in water with white noise and the preset's SNR.

The preset's parameters were chosen by hand on this very cell and these very measures, over seven trials: its numbers
say how close the simulator can come, not how well it foretells another tomogram. Nothing was chosen for ``plain``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import as_file, files
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from scipy.spatial import cKDTree
from scipy.stats import skew

from benchmarks import harness
from tomotif.core import InputError, MissingWedge, Tomogram
from tomotif.io.mrc import open_tomogram
from tomotif.io.structure import load_structure
from tomotif.pipelines.simulate import TomogramSpec, preset_names, read_spec
from tomotif.tasks.pick import PickSettings, pick
from tomotif.tasks.simulate import SimulatedTomogram, simulate_tomogram

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SEEDS = (0, 1, 2)
PRESET = "mycoplasma"
IMAGES = Path(__file__).parents[1] / "docs" / "images"
PLAIN = ("4v5d", "4v8r", "3j9i", "1oel", "1bxn", "2fha")

BOX = 64
"""Edge in voxels of the windows that spectra are taken from."""
LOCAL_BOX = 32
"""Edge in voxels of the boxes that local deviations are taken from."""
BAND = (1 / 400, 1 / 45)
"""1/Å; the shells that are compared. Beyond, the filter of the real reconstruction leaves nothing to compare."""
SMOOTHING = 1.3
"""Voxels; the Gaussian under which a membrane becomes visible."""
MARGIN = 10
"""Planes at the top and bottom of a volume that hold no cell."""
PICKS = {
    "all": PickSettings(),
    "large": PickSettings(radius=(90.0, 130.0)),
}
"""All complexes, and balls as large as ribosomes."""


@dataclass(frozen=True, eq=False)
class Scene:
    """A tomogram and where its cell is.

    Parameters
    ----------
    tomogram
        As it is.
    inside
        Voxels well inside the cell, shape zyx.
    density
        Bright, with mean 0 and variance 1 inside the cell, shape zyx.
    """

    tomogram: Tomogram
    inside: NDArray[np.bool_]
    density: NDArray[np.float32]

    @classmethod
    def of(cls, tomogram: Tomogram, inside: NDArray[np.bool_]) -> Scene:
        """Make it bright and z-scored inside the cell."""
        values = np.asarray(tomogram.volume.data, dtype=np.float32)
        values = -values if tomogram.contrast == "dark" else values
        within = values[inside]
        return cls(tomogram, inside, (values - within.mean()) / within.std())

    def within(self, part: NDArray[np.bool_]) -> Scene:
        """The same with a smaller cell."""
        return Scene.of(self.tomogram, self.inside & part)

    @property
    def voxel_size(self) -> float:
        """Edge of a voxel in Å."""
        return self.tomogram.voxel_size

    @property
    def smooth(self) -> NDArray[np.float32]:
        """Local means: the density under the Gaussian that shows a membrane."""
        return gaussian_filter(self.density, SMOOTHING).astype(np.float32)


# ------------------------------------------------------------------------------------------------------- metrics


def windows(inside: NDArray[np.bool_], size: int, *, least: float = 0.9) -> list[tuple[slice, slice, slice]]:
    """Cubes of which the cell fills at least ``least``, each half over the next (in z three quarters)."""
    steps = (size // 4, size // 2, size // 2)
    starts = []
    for axis, step in enumerate(steps):
        filled = np.flatnonzero(inside.any(axis=tuple(other for other in range(3) if other != axis)))
        starts.append(range(filled[0], filled[-1] - size + 2, step) if len(filled) else range(0))
    cubes = [(slice(z, z + size), slice(y, y + size), slice(x, x + size)) for z, y, x in product(*starts)]
    return [cube for cube in cubes if inside[cube].mean() >= least]


def spectrum(scene: Scene, *, size: int = BOX) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Radial power spectrum inside the cell and the measured wedge.

    The mean, over cubes of ``size`` voxels inside the cell under a Hann window (Welch 1967, IEEE Trans Audio
    Electroacoust 15:70), of the squared Fourier coefficients, averaged over shells one coefficient wide. Coefficients
    outside of the wedge are left out.

    Returns
    -------
    frequency : NDArray[float64], shape (size // 2 - 1,)
        Of the shells, in 1/Å.
    power : NDArray[float64], shape (size // 2 - 1,)
        1 for white noise of variance 1.
    """
    once = np.hanning(size + 2)[1:-1]
    window = once[:, None, None] * once[:, None] * once
    power = np.zeros((size, size, size // 2 + 1))
    cubes = windows(scene.inside, size)
    if not cubes:
        raise InputError(
            f"expected a cell that holds a cube of {size} voxels, got one that does not; ask for a larger one"
        )
    for cube in cubes:
        box = scene.density[cube]
        power += np.abs(np.fft.rfftn((box - box.mean()) * window)) ** 2
    power /= len(cubes) * np.sum(window**2)
    k = np.fft.fftfreq(size, 1 / size)
    shell = np.sqrt(k[:, None, None] ** 2 + k[:, None] ** 2 + np.arange(size // 2 + 1) ** 2).round().astype(int)
    measured = scene.tomogram.missing_wedge.mask((size, size, size))
    shells = np.arange(1, size // 2)
    radial = np.array([power[measured & (shell == i)].mean() for i in shells])
    return shells / (size * scene.voxel_size), radial


def spectrum_error(frequency: NDArray[np.float64], real: NDArray[np.float64], simulated: NDArray[np.float64]) -> float:
    """Mean over the shells of :data:`BAND` of |ln(simulated / real)|: 0.1 means off by 10 % in power.

    Examples
    --------
    >>> k = np.array([0.001, 0.005, 0.01, 0.1])
    >>> round(spectrum_error(k, np.array([1.0, 2, 2, 1]), np.array([9.0, 2, 4, 9])), 3)
    0.347
    """
    band = (frequency >= BAND[0]) & (frequency <= BAND[1])
    return float(np.abs(np.log(simulated[band] / real[band])).mean())


def local_contrast(scene: Scene) -> dict[str, float]:
    """How strongly local means vary inside the cell.

    Returns
    -------
    dict
        ``deviation``, their standard deviation; ``q10``, ``q50`` and ``q90``, quantiles of their standard deviation in
        boxes of 32³ voxels; ``skewness``, above 0 when compact dense matter stands out; ``over_noise``, the deviation
        over that in the planes at the top and bottom, where there is only noise.
    """
    smooth = scene.smooth
    boxes = [float(smooth[cube].std()) for cube in windows(scene.inside, LOCAL_BOX)]
    low, middle, high = np.quantile(boxes, (0.1, 0.5, 0.9))
    inside = smooth[scene.inside]
    deviation = float(inside.std())
    y, x = (slice(n // 10, -(n // 10)) for n in smooth.shape[1:])
    noise = math.sqrt(np.mean([smooth[z, y, x].var() for z in (*range(MARGIN), *range(-MARGIN, 0))]))
    return {
        "deviation": deviation,
        "q10": float(low),
        "q50": float(middle),
        "q90": float(high),
        "skewness": float(skew(inside)),
        "over_noise": deviation / noise,
    }


def neighbour_distances(scene: Scene, settings: PickSettings) -> NDArray[np.float64]:
    """Distance in Å from each pick inside the cell to the nearest other one; shape (picks,)."""
    position = pick(scene.tomogram, settings).position
    voxel = np.clip(np.round(position / scene.voxel_size).astype(int), 0, np.array(scene.inside.shape) - 1)
    position = position[scene.inside[tuple(voxel.T)]]
    return np.asarray(cKDTree(position).query(position, k=2)[0])[:, 1] if len(position) > 1 else np.zeros(0)


@dataclass(frozen=True, eq=False)
class Measured:
    """Everything that is compared."""

    frequency: NDArray[np.float64]
    power: NDArray[np.float64]
    contrast: dict[str, float]
    distances: dict[str, NDArray[np.float64]]
    volume: float  # of the cell, in µm³

    @classmethod
    def of(cls, scene: Scene) -> Measured:
        """Measure a scene."""
        return cls(
            *spectrum(scene),
            local_contrast(scene),
            {name: neighbour_distances(scene, settings) for name, settings in PICKS.items()},
            float(scene.inside.sum()) * scene.voxel_size**3 / 1e12,
        )

    def against(self, real: Measured) -> dict[str, float]:
        """The numbers reported: an error, and ratios to the real one."""
        ratios = {f"contrast_{key}": self.contrast[key] / real.contrast[key] for key in ("q10", "q50", "q90")}
        found = {
            "spectrum_error": spectrum_error(real.frequency, real.power, self.power),
            "contrast_ratio": self.contrast["deviation"] / real.contrast["deviation"],
            **ratios,
            "skewness": self.contrast["skewness"],
            "contrast_over_noise_ratio": self.contrast["over_noise"] / real.contrast["over_noise"],
        }
        for name in PICKS:
            suffix = "" if name == "all" else f"_{name}"
            mine, other = self.distances[name], real.distances[name]
            found[f"neighbour_distance_ratio{suffix}"] = float(np.median(mine) / np.median(other)) if len(mine) else 0.0
            found[f"picks_per_um3_ratio{suffix}"] = len(mine) / self.volume / (len(other) / real.volume)
        return found


# -------------------------------------------------------------------------------------------------------- scenes


def real_scene() -> Scene:
    """The real cell. Its borders were marked by hand: two slanted lines in the planes that hold ribosomes."""
    with as_file(files("tomotif.resources") / "mpneumoniae_20A.mrc") as path:
        cell = open_tomogram(path, missing_wedge=MissingWedge(-60, 60), contrast="dark", check=False)
        values = np.array(cell.volume.data)
    z, y, x = np.ogrid[tuple(slice(0, n) for n in values.shape)]
    inside = (z >= 42) & (z < 110) & (y >= 10) & (x >= 36 + 0.22 * y) & (x < 205 + 0.45 * y)
    return Scene.of(cell, inside)


def simulated_scene(made: SimulatedTomogram) -> Scene:
    """A simulated cell: where complexes lie about as densely as in the middle of it, from the truth."""
    crowd = gaussian_filter((made.instances.data > 0).astype(np.float32), 12, mode="nearest")
    usual = float(np.quantile(crowd[crowd > 0.1 * crowd.max()], 0.7))
    inside = gaussian_filter((crowd > 0.5 * usual).astype(np.float32), 5, mode="nearest") > 0.8
    inside[:MARGIN] = inside[-MARGIN:] = False
    return Scene.of(made.tomogram, inside)


def halves(real: Scene) -> tuple[Scene, Scene]:
    """The real cell in two, along y."""
    y = np.arange(real.inside.shape[1])[None, :, None]
    return real.within(y < 80), real.within(y >= 80)


def plain() -> TomogramSpec:
    """Six complexes in water and white noise, corrected for the CTF; volume, tilts, ice and SNR are the preset's."""
    rich = read_spec([PRESET])
    kept = ("shape", "voxel_size", "snr", "snr_reference", "contrast", "box_px", "ice_thickness")
    return TomogramSpec.model_validate(
        {"structures": PLAIN, "occupancy": 0.1, **{key: getattr(rich, key) for key in kept}}
    )


def simulated(spec: TomogramSpec, seed: int) -> SimulatedTomogram:
    """One tomogram of a spec."""
    rng = np.random.default_rng(seed)
    structures = [load_structure(name) for name in spec.structures]
    return simulate_tomogram(structures, spec.settings(spec.draw(rng)), rng, noise_free=False)


# ------------------------------------------------------------------------------------------------------ pictures


def grey(values: NDArray[np.float32], levels: tuple[float, float]) -> NDArray[np.float32]:
    """Dense matter dark, between two levels of the density."""
    return np.clip((values - levels[0]) / (levels[1] - levels[0]), 0, 1)


def save(figure: Figure, name: str) -> None:
    """Write a picture for the pages."""
    IMAGES.mkdir(parents=True, exist_ok=True)
    figure.savefig(IMAGES / f"{name}.jpg", dpi=115, bbox_inches="tight", pil_kwargs={"quality": 72, "optimize": True})


def draw_slices(real: Scene, made: Scene) -> None:
    """Real and simulated slices under one filter and between the same grey levels, and a section along the beam."""
    from matplotlib.figure import Figure

    volumes = {"real": real.smooth, "simulated": made.smooth}
    low, high = np.quantile(volumes["real"][real.inside], (0.003, 0.997))
    ny, nz = real.inside.shape[1], real.inside.shape[0]
    figure = Figure(figsize=(9.6, 11.0))
    axes = figure.subplots(5, 2, height_ratios=[ny] * 4 + [nz], gridspec_kw={"wspace": 0.02, "hspace": 0.03})
    for column, (name, volume) in enumerate(volumes.items()):
        planes = [(f"z = {z}", volume[z]) for z in (50, 64, 78, 92)] + [("y = 75", volume[:, 75])]
        for row, (label, plane) in enumerate(planes):
            axes[row, column].imshow(grey(plane, (low, high)), cmap="gray_r", vmin=0, vmax=1, interpolation="bilinear")
            axes[row, column].set_axis_off()
            axes[row, column].text(4, 10, label, fontsize=8, va="center", bbox={"facecolor": "white", "pad": 1.5})
        axes[0, column].set_title(name)
    save(figure, "realism_slices")


def draw_spectra(real: Measured, parts: Sequence[Measured], made: Sequence[Measured], bare: Sequence[Measured]) -> None:
    """Radial power spectra."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 4.2))
    axes = figure.subplots()
    k = real.frequency
    low, high = np.min([p.power for p in parts], axis=0), np.max([p.power for p in parts], axis=0)
    axes.fill_between(k, low, high, color="0.8", label="the halves of the real cell")
    axes.semilogy(k, real.power, color="k", label="real")
    for label, many, colour in (("simulated", made, "#E0600F"), ("plain", bare, "#3D7FF0")):
        power = np.array([one.power for one in many])
        axes.semilogy(k, power.mean(axis=0), color=colour, label=label)
        axes.fill_between(k, power.min(axis=0), power.max(axis=0), color=colour, alpha=0.25, linewidth=0)
    for end in BAND:
        axes.axvline(end, color="0.6", linestyle=":")
    axes.set(xlabel="spatial frequency (1/Å)", ylabel="power (variance 1 inside the cell)", xlim=(0, k[-1]))
    axes.legend(frameon=False)
    save(figure, "realism_spectra")


def draw_distances(real: Measured, made: Sequence[Measured], bare: Sequence[Measured]) -> None:
    """Histograms of the distance to the nearest pick."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.0, 3.4))
    titles = {"all": "all picks", "large": "picks as large as ribosomes"}
    for axes, (name, edges) in zip(
        figure.subplots(1, 2), {"all": np.arange(60, 260, 8), "large": np.arange(100, 620, 25)}.items(), strict=True
    ):
        sets = (("real", [real], "k"), ("simulated", made, "#E0600F"), ("plain", bare, "#3D7FF0"))
        for label, many, colour in sets:
            values = np.concatenate([one.distances[name] for one in many])
            axes.hist(values, bins=edges, density=True, histtype="step", color=colour, label=label, linewidth=1.5)
        axes.set(title=titles[name], xlabel="distance to the nearest pick (Å)", yticks=[])
    axes.legend(frameon=False)
    save(figure, "realism_distances")


def draw_presets() -> None:
    """For every other preset a row: what was in the microscope, and the tomogram at three depths."""
    from matplotlib.figure import Figure

    names = [name for name in preset_names() if name != PRESET]
    figure = Figure(figsize=(10.0, 2.65 * len(names)))
    for row, name in enumerate(names):
        made = simulated(read_spec([name]), 0)
        values = np.asarray(made.tomogram.volume.data, dtype=np.float32)
        seen = gaussian_filter(values if made.tomogram.contrast == "bright" else -values, SMOOTHING)
        depth = len(seen)
        panels = [("specimen", made.density[depth // 2], (-0.1, 0.6))]
        low, high = np.quantile(seen, (0.005, 0.995))
        panels += [(f"z = {z}", seen[z], (low, high)) for z in (depth // 2, depth // 2 - 15, depth // 2 + 15)]
        for column, (label, plane, levels) in enumerate(panels):
            side = min(plane.shape)
            top, left = ((n - side) // 2 for n in plane.shape)
            axes = figure.add_subplot(len(names), 4, 4 * row + column + 1)
            square = plane[top : top + side, left : left + side]
            axes.imshow(grey(square, levels), cmap="gray_r", vmin=0, vmax=1, interpolation="nearest")
            axes.set(xticks=[], yticks=[], title=f"{name}: {label}" if column == 0 else label)
    figure.tight_layout()
    save(figure, "presets")


# ---------------------------------------------------------------------------------------------------------- main


def summary(rows: Sequence[dict[str, float]]) -> tuple[dict[str, float], dict[str, float]]:
    """Mean and standard deviation of every number over seeds.

    >>> summary([{"a": 1.0}, {"a": 3.0}])
    ({'a': 2.0}, {'a': 1.4142})
    """
    mean = {key: round(float(np.mean([row[key] for row in rows])), 4) for key in rows[0]}
    if len(rows) == 1:
        return mean, dict.fromkeys(mean, 0.0)
    return mean, {key: round(float(np.std([row[key] for row in rows], ddof=1)), 4) for key in rows[0]}


def main(quick: bool) -> dict[str, Any]:
    """Compare simulated tomograms, plain ones, and halves of the real one with the real one; draw unless quick."""
    scene = real_scene()
    real = Measured.of(scene)
    parts = [Measured.of(half) for half in halves(scene)]
    seeds = SEEDS[:1] if quick else SEEDS
    first: list[Scene] = []
    found: dict[str, list[Measured]] = {"preset": [], "plain": []}
    for name, spec in (("preset", read_spec([PRESET])), ("plain", plain())):
        for seed in seeds:
            cell = simulated_scene(simulated(spec, seed))
            found[name].append(Measured.of(cell))
            first.append(cell) if not first else None
    if not quick:
        draw_slices(scene, first[0])
        draw_spectra(real, parts, found["preset"], found["plain"])
        draw_distances(real, found["preset"], found["plain"])
        draw_presets()
    mean, deviation = summary([one.against(real) for one in found["preset"]])
    bare, bare_deviation = summary([one.against(real) for one in found["plain"]])
    return {
        **mean,
        "sd": deviation,
        "plain": bare,
        "plain_sd": bare_deviation,
        "floor": summary([parts[0].against(parts[1])])[0],
        "real": {
            **{key: round(value, 4) for key, value in real.contrast.items()},
            **{f"picks_{name}": len(distances) for name, distances in real.distances.items()},
            **{f"neighbour_distance_{name}": round(float(np.median(d)), 1) for name, d in real.distances.items()},
            "cell_um3": round(real.volume, 4),
        },
        "band": "1/400 to 1/45 Å⁻¹, shells of 1/1280 Å⁻¹, mean |ln(simulated / real)|",
        "tomograms": len(seeds),
    }


if __name__ == "__main__":
    harness.run("realism", main, seeds=SEEDS)
