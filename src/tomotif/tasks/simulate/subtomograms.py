"""The fast path: subtomograms of single particles."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from tomotif.core import BACKGROUND, InputError, Particles, Structure, Subtomograms
from tomotif.core.geometry import random_rotations
from tomotif.io.environment import cpu_count
from tomotif.ops.packing import Neighbours, surround
from tomotif.ops.threads import one_thread_each
from tomotif.tasks.simulate.noise import noise_levels, work_px
from tomotif.tasks.simulate.settings import SubtomogramSettings
from tomotif.tasks.simulate.templates import Template, check_names, chunks, outermost_points_of, render, templates
from tomotif.tasks.simulate.transfer import microscope, middle, noise_transfer

if TYPE_CHECKING:
    from torch import Tensor


class _Scene(NamedTuple):
    """What is in n boxes, before anything is rendered."""

    which: NDArray[np.int64]  # index of the structure, -1 for background
    rotations: Rotation
    offsets: NDArray[np.float64]  # Å from the centre
    defocus_um: NDArray[np.float64]
    neighbours: Neighbours


def simulate_subtomograms(
    structures: Sequence[Structure],
    settings: SubtomogramSettings,
    rng: np.random.Generator,
    *,
    name: str = "simulated",
    stack: NDArray[np.float16] | None = None,
    density: NDArray[np.float16] | None = None,
) -> Subtomograms:
    """Subtomograms of single particles, fast: CTF, wedge and noise are applied to each box in Fourier space.

    The box is periodic; against a box cut from a large tomogram the noise-free correlation stays above 0.98. With
    neighbours the signal is made in a box half as large again. The noise fills the measured wedge and its deviation
    is that of :func:`signal_to_noise`.

    Parameters
    ----------
    structures
        One class each, named by the structure.
    settings
        Microscope, box, shifts, neighbours and noise.
    rng
        Decides everything: the same state gives the same bytes.
    name
        Tomogram name of all the boxes.
    stack
        Array to fill, shape (n, box_px, box_px, box_px) with n = count · structures + background; made when None.
    density
        Array like it to fill with the density (electrons/Å³) of each box's particle alone, in the same place and pose:
        no neighbours, CTF, wedge or noise.

    Returns
    -------
    Subtomograms
        Bright, z-scored boxes in random order of classes. Columns ``class``, ``mean``, ``deviation``,
        ``defocus_um`` and ``shift_z``, ``shift_y``, ``shift_x`` (Å from the centre, also in the position); orientation
        is the true pose.

    Raises
    ------
    InputError
        When two structures have one name, or the stack has another shape.
    """
    import torch

    check_names(structures)
    total, box = settings.count * len(structures) + settings.background, settings.box_px
    for given in (stack, density):
        if given is not None and given.shape != (total, box, box, box):
            raise InputError(f"expected a stack of shape {(total, box, box, box)} to fill, got {given.shape}")
    boxes = np.empty((total, box, box, box), dtype=np.float16) if stack is None else stack

    noise = np.array([row.noise_deviation for row in noise_levels(structures, settings)])
    scene = _draw_scene(structures, settings, rng)
    # an empty place is as noisy as the place of some particle
    noise = noise[np.where(scene.which < 0, rng.integers(len(structures), size=total), scene.which)]
    moments = np.empty((total, 2))
    image = _imager(scene, templates(structures, settings), settings, noise)

    def fill(rows: NDArray[np.int64], seed: int) -> None:
        imaged, alone = image(rows, np.random.default_rng(seed))
        values = imaged.numpy()
        if density is not None:
            density[rows[0] : rows[-1] + 1] = alone.half().numpy()
        mean, deviation = values.mean(axis=(1, 2, 3)), values.std(axis=(1, 2, 3))
        moments[rows] = np.stack([mean, deviation], axis=1)
        values -= mean[:, None, None, None]
        values /= np.where(deviation > 0, deviation, 1)[:, None, None, None]
        boxes[rows[0] : rows[-1] + 1] = torch.from_numpy(values).half().numpy()

    # every chunk has its own seed, so that the number of threads does not matter
    parts = chunks(total, work_px(settings))
    seeds = rng.integers(2**63, size=len(parts))
    with one_thread_each(), ThreadPoolExecutor(cpu_count()) as pool:
        list(pool.map(fill, parts, seeds))
    names = np.array([*(s.name for s in structures), BACKGROUND], dtype=object)
    particles = Particles.create(
        name,
        scene.offsets + (box // 2) * settings.voxel_size,
        scene.rotations,
        {
            "class": names[scene.which],
            "mean": moments[:, 0],
            "deviation": moments[:, 1],
            "defocus_um": scene.defocus_um,
            **dict(zip(("shift_z", "shift_y", "shift_x"), scene.offsets.T, strict=True)),
        },
    )
    return Subtomograms(particles, boxes, settings.voxel_size, settings.missing_wedge)


def _draw_scene(structures: Sequence[Structure], settings: SubtomogramSettings, rng: np.random.Generator) -> _Scene:
    kinds = np.repeat(np.arange(len(structures)), settings.count)
    which = rng.permutation(np.concatenate([kinds, np.full(settings.background, -1)]))
    n = len(which)
    rotations = random_rotations(n, rng)
    reach_px = settings.max_shift_px * settings.voxel_size
    offsets = np.where(which[:, None] < 0, 0.0, rng.uniform(-reach_px, reach_px, (n, 3)))
    defocus = rng.uniform(*settings.defocus_um, n)
    count, gap = settings.neighbours, settings.neighbour_gap
    points = [outermost_points_of(s) for s in structures] if count else []
    around = surround(points, which, rotations, offsets, rng, count=count, gap=gap)
    return _Scene(which, rotations, offsets, defocus, around)


def _imager(
    scene: _Scene, ready: Sequence[Template], settings: SubtomogramSettings, noise: NDArray[np.float64]
) -> Callable[[NDArray[np.int64], np.random.Generator], tuple[Tensor, Tensor]]:
    """What makes the noisy boxes of some consecutive rows of the scene, and the densities of their particles alone."""
    import torch

    box = settings.box_px
    work = work_px(settings)
    optics = microscope(work, settings)
    filtering = torch.from_numpy(noise_transfer((box, box, box), settings))
    around = scene.neighbours

    def image(rows: NDArray[np.int64], rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        boxes = torch.zeros(len(rows), work, work, work)
        offsets = scene.offsets[rows] / settings.voxel_size
        render(ready, scene.which[rows], scene.rotations[rows], offsets, rows - rows[0], boxes)
        alone = middle(boxes, box).clone()
        near = np.flatnonzero((around.owner >= rows[0]) & (around.owner <= rows[-1]))
        if len(near):
            offsets, owner = around.offsets[near] / settings.voxel_size, around.owner[near] - rows[0]
            render(ready, around.which[near], around.rotations[near], offsets, owner, boxes)
        seen = middle(optics.image(boxes, scene.defocus_um[rows]), box)
        if settings.snr is None:
            return seen.contiguous(), alone
        white = torch.from_numpy(rng.standard_normal(seen.shape, dtype=np.float32))
        level = torch.from_numpy(noise[rows].astype(np.float32))[:, None, None, None]
        spectrum = torch.fft.rfftn(white, dim=(1, 2, 3)).mul_(filtering).mul_(level)
        return torch.fft.irfftn(spectrum, s=(box, box, box), dim=(1, 2, 3)).add_(seen), alone

    return image
