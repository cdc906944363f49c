"""The pose search against closed forms, finite differences, and boxes whose pose is known."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from itertools import pairwise

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy import fft
from scipy.spatial.transform import Rotation

from tomotif.core import InputError, MissingWedge
from tomotif.core.geometry import random_rotations
from tomotif.io.structure import load_structure
from tomotif.ops.align import (
    Band,
    Poses,
    Reference,
    Search,
    SearchPlan,
    _model,
    _small_rotation,
    correlation,
    noise_power,
    refine,
)
from tomotif.ops.density import structure_density
from tomotif.ops.fourier import axis_frequencies
from tomotif.ops.rotate import rotate_volumes

BOX = 32
WEDGE = MissingWedge(-60, 60)
QUICK = SearchPlan(rotations=1152, screening=288, coarse=8.0, fine=11.0, candidates=5, kept=1)
"""Enough for the ribosome, which has no symmetry and much detail."""


@lru_cache
def density(name: str = "4v5d", box_px: int = BOX) -> NDArray[np.float32]:
    return structure_density(load_structure(name), voxel_size=12.0, resolution=25.0, shape=(box_px,) * 3)


@lru_cache
def search(wedge: MissingWedge = WEDGE, box_px: int = BOX, plan: SearchPlan = QUICK) -> Search:
    return Search.prepare(Reference.of(density(box_px=box_px)), Band.measured(box_px, wedge, plan.fine), plan)


def through(boxes: NDArray[np.floating], transfer: NDArray[np.generic]) -> NDArray[np.float32]:
    """Boxes under a filter in the layout of ``rfftn``."""
    spectrum = fft.rfftn(boxes, axes=(1, 2, 3)) * transfer
    return fft.irfftn(spectrum, s=boxes.shape[1:], axes=(1, 2, 3)).astype(np.float32)


def poses(count: int, seed: int = 0, reach: float = 4.0) -> tuple[Rotation, NDArray[np.float64]]:
    rng = np.random.default_rng(seed)
    return random_rotations(count, rng), rng.uniform(-reach, reach, (count, 3))


def seen(
    rotations: Rotation, shifts: NDArray[np.float64], wedge: MissingWedge = WEDGE, box_px: int = BOX
) -> NDArray[np.float32]:
    """Noise-free boxes, each rendered from the atoms in its pose."""
    boxes = [
        structure_density(
            load_structure("4v5d"),
            voxel_size=12.0,
            resolution=25.0,
            shape=(box_px,) * 3,
            rotation=rotation,
            shift=shift * 12.0,
        )
        for rotation, shift in zip(rotations, shifts, strict=True)
    ]
    return through(np.stack(boxes), wedge.mask((box_px,) * 3))


def noisy(boxes: NDArray[np.float32], snr: float, colour: NDArray[np.floating] | float = 1.0) -> NDArray[np.float32]:
    """With noise inside the wedge; SNR is Var(signal) / Var(noise) over the box."""
    white = np.random.default_rng(1).standard_normal(boxes.shape)
    noise = through(white, WEDGE.mask((BOX,) * 3) * colour)
    return boxes + noise * np.float32(np.sqrt(boxes.var() / noise.var() / snr))


def degrees(found: Rotation, true: Rotation) -> NDArray[np.float64]:
    return np.degrees((found.inv() * true).magnitude())


def worst(found: Poses, rotations: Rotation, shifts: NDArray[np.float64]) -> tuple[float, float]:
    """Largest error in degrees and, along an axis, in voxels."""
    return float(degrees(found.rotations, rotations).max()), float(np.abs(found.shifts_px - shifts).max())


# ---------------------------------------------------------------------------------------------- the band


@pytest.mark.parametrize("box_px", [16, 17])
@pytest.mark.parametrize("wedge", [None, WEDGE, MissingWedge(-40, 60, "x")])
def test_a_band_has_one_of_each_friedel_pair_that_was_measured(box_px: int, wedge: MissingWedge | None) -> None:
    wave = Band.measured(box_px, wedge, 6.0).wave.numpy()
    k = np.arange(-6, 7)
    z, y, x = (part.ravel() for part in np.meshgrid(k, k, k, indexing="ij"))
    radius = np.sqrt(z**2 + y**2 + x**2)
    expected = (radius >= 1) & (radius <= 6) & (wedge is None or wedge.contains(z, y, x))
    both = {tuple(v) for v in np.concatenate([wave, -wave]).astype(int).tolist()}
    assert len(both) == 2 * len(wave)
    assert both == {tuple(v) for v in np.stack([z, y, x], axis=1)[expected].tolist()}


@pytest.mark.parametrize("box_px", [16, 17])
def test_coefficients_are_about_the_centre_and_a_shift_is_a_phase(box_px: int) -> None:
    axis = np.arange(box_px) - box_px // 2
    ball = np.exp(-(axis[:, None, None] ** 2 + axis[:, None] ** 2 + axis**2) / 4)
    moved = np.roll(ball, (2, -1, 3), axis=(0, 1, 2))
    band = Band.measured(box_px, None, 6.0)
    still, shifted = band.coefficients(torch.from_numpy(np.stack([ball, moved]).astype(np.float32)))
    assert float(still.imag.abs().max()) < 1e-4 * float(still.real.max())
    assert float(still.real.min()) > 0
    expected = still * band.phases(torch.tensor([[2.0, -1.0, 3.0]]))[0]
    torch.testing.assert_close(shifted, expected, atol=1e-4, rtol=0)


def test_weights_are_proportional_to_one_over_the_noise() -> None:
    power = 1 + np.random.default_rng(0).random((16, 16, 9))
    band = Band.measured(16, WEDGE, 6.0, power)
    z, y, x = band.wave.numpy().astype(int).T
    product = band.weight.numpy() * power[z, y, x]
    np.testing.assert_allclose(product, product[0], rtol=1e-5)
    assert float(Band.measured(16, WEDGE, 6.0).weight.std()) == 0
    assert len(band.within(3.0)) == len(Band.measured(16, WEDGE, 3.0)) > 0


def test_noise_power_finds_how_noise_grows_across_the_tilt_axis() -> None:
    kz, _, kx = axis_frequencies((BOX,) * 3)
    colour = np.sqrt(0.05 + np.hypot(kz, kx))
    boxes = through(np.random.default_rng(0).standard_normal((24, BOX, BOX, BOX)), WEDGE.mask((BOX,) * 3) * colour)
    band = Band.measured(BOX, WEDGE, 12.0, noise_power(boxes, WEDGE))
    ratio = band.weight * torch.from_numpy(0.05 + np.hypot(*band.wave.numpy()[:, [0, 2]].T) / BOX)
    assert float(ratio.std() / ratio.mean()) < 0.1
    assert band.weight.max() > 3 * band.weight.min()


# ---------------------------------------------------------------------------------------------- the model


def gaussian(box_px: int, centre: NDArray[np.float64], width: float) -> NDArray[np.float32]:
    axes = np.meshgrid(*[np.arange(box_px) - box_px // 2 - c for c in centre], indexing="ij")
    return np.exp(-sum(a**2 for a in axes) / (2 * width**2)).astype(np.float32)


@pytest.mark.parametrize("box_px", [32, 33])
def test_the_transform_of_a_gaussian_and_its_gradient_are_the_analytic_ones(box_px: int) -> None:
    # F(k) = (2 pi s²)^(3/2) exp(-2 pi² s² k² / D²) exp(-2 pi i k·c / D) and its derivatives by k
    centre, width = np.array([1.5, -2.0, 0.7]), 1.6
    reference = Reference.of(gaussian(box_px, centre, width))
    rng = np.random.default_rng(0)
    wave = rng.standard_normal((2000, 3))
    wave *= (rng.uniform(0, 0.4 * box_px, 2000) / np.linalg.norm(wave, axis=1))[:, None]
    found = reference.sample(torch.from_numpy(wave.astype(np.float32))).numpy()
    top = (2 * np.pi * width**2) ** 1.5
    turns = np.exp(-2j * np.pi * wave @ centre / box_px)
    value = top * np.exp(-2 * (np.pi * width / box_px) ** 2 * np.sum(wave**2, axis=1)) * turns
    slope = value[:, None] * (-((2 * np.pi * width / box_px) ** 2) * wave - 2j * np.pi * centre / box_px)
    assert np.abs(found[:, 0] - value).max() < 0.02 * top
    assert np.abs(found[:, 1:] - slope).max() < 0.02 * np.abs(slope).max()
    only = reference.sample(torch.from_numpy(wave.astype(np.float32)), gradient=False).numpy()
    np.testing.assert_allclose(only[:, 0], found[:, 0], atol=1e-5 * top)


def test_small_rotations_are_those_of_rotation_vectors() -> None:
    vectors = np.random.default_rng(0).normal(0, 0.3, (20, 3))
    vectors[0] = 0
    found = _small_rotation(torch.from_numpy(vectors)).numpy()
    np.testing.assert_allclose(found, Rotation.from_rotvec(vectors).as_matrix(), atol=1e-10)


@pytest.mark.parametrize("name", ["1bxn", "4v5d"])
def test_derivatives_are_those_of_finite_differences(name: str) -> None:
    # in double precision; rotation only as well as straight lines between samples of the transform allow
    reference, band = Reference.of(density(name)), Band.measured(BOX, WEDGE, 8.0)
    reference = replace(reference, grid=reference.grid.double())
    band = replace(band, wave=band.wave.double(), weight=band.weight.double())
    rotations, shifts = poses(4)
    turn, shift = torch.from_numpy(rotations.as_matrix()), torch.from_numpy(shifts)
    jacobian = _model(reference, band, turn, shift)[1]
    for axis in range(3):
        small = torch.zeros(4, 3, dtype=torch.float64)
        small[:, axis] = 0.08
        ahead, behind = (_model(reference, band, turn @ _small_rotation(w), shift)[0] for w in (small, -small))
        by_turn = (ahead - behind) / 0.16
        assert float((by_turn - jacobian[..., axis]).norm() / by_turn.norm()) < 0.15
        small = small / 80
        ahead, behind = (_model(reference, band, turn, shift + s)[0] for s in (small, -small))
        by_shift = (ahead - behind) / 0.002
        assert float((by_shift - jacobian[..., 3 + axis]).norm() / by_shift.norm()) < 1e-4


def test_the_model_of_a_gaussian_and_its_derivatives_are_exact_in_any_pose() -> None:
    centre, width = np.array([2.0, -1.0, 1.5]), 2.0
    reference, band = Reference.of(gaussian(BOX, centre, width)), Band.measured(BOX, WEDGE, 8.0)
    rotations, shifts = poses(5)

    def exact(rotation: Rotation, shift: NDArray[np.float64]) -> NDArray[np.complex128]:
        """A Gaussian stays one; its middle goes where rotation and shift take it."""
        wave = band.wave.numpy().astype(np.float64)
        middle = rotation.apply(centre) + shift
        fall = np.exp(-2 * (np.pi * width / BOX) ** 2 * np.sum(wave**2, axis=1))
        return (2 * np.pi * width**2) ** 1.5 * fall * np.exp(-2j * np.pi * wave @ middle / BOX)

    given = (torch.from_numpy(a.astype(np.float32)) for a in (rotations.as_matrix(), shifts))
    value, jacobian = (part.numpy() for part in _model(reference, band, *given))
    h = 1e-4
    for i in range(5):
        rotation, shift = rotations[i], shifts[i]
        assert np.linalg.norm(value[i] - exact(rotation, shift)) < 0.03 * np.linalg.norm(value[i])
        for axis, step in enumerate(h * np.eye(3)):
            ahead, behind = (exact(rotation * Rotation.from_rotvec(s), shift) for s in (step, -step))
            by_turn = (ahead - behind) / (2 * h)
            by_shift = (exact(rotation, shift + step) - exact(rotation, shift - step)) / (2 * h)
            assert np.linalg.norm(jacobian[i, :, axis] - by_turn) < 0.05 * np.linalg.norm(by_turn)
            assert np.linalg.norm(jacobian[i, :, 3 + axis] - by_shift) < 0.05 * np.linalg.norm(by_shift)


def test_refinement_ends_at_the_pose_and_never_lowers_the_correlation() -> None:
    rotations, shifts = poses(6)
    off, reach = (
        Rotation.from_rotvec(np.radians(8) * random_rotations(6, np.random.default_rng(5)).apply([0, 0, 1])),
        0.7,
    )
    ready = search()
    data = ready.fine.coefficients(torch.from_numpy(seen(rotations, shifts)))
    turn = torch.from_numpy((rotations * off).as_matrix().astype(np.float32))[:, None]
    shift = torch.from_numpy((shifts + reach).astype(np.float32))[:, None]
    before = correlation(ready.reference, ready.fine, data, turn, shift)
    scores = [refine(ready.reference, ready.fine, data, turn, shift, steps)[2] for steps in range(5)]
    torch.testing.assert_close(scores[0], before, atol=1e-5, rtol=0)
    assert all(bool((after >= before - 1e-6).all()) for before, after in pairwise(scores))
    turn, shift, _ = refine(ready.reference, ready.fine, data, turn, shift, 6)
    assert degrees(Rotation.from_matrix(turn[:, 0].double().numpy()), rotations).max() < 0.2
    assert np.abs(shift[:, 0].numpy() - shifts).max() < 0.05


# ---------------------------------------------------------------------------------------------- the search


@pytest.mark.parametrize(
    ("wedge", "box_px"), [(WEDGE, 32), (MissingWedge(-40, 60), 32), (MissingWedge(-60, 60, "x"), 33), (WEDGE, 27)]
)
def test_a_box_without_noise_is_found(wedge: MissingWedge, box_px: int) -> None:
    rotations, shifts = poses(4)
    found = search(wedge, box_px)(seen(rotations, shifts, wedge, box_px))
    angle, distance = worst(found, rotations, shifts)
    assert angle < 0.2 and distance < 0.05
    assert found.score.min() > 0.998


def test_the_wrong_wedge_correlates_less() -> None:
    boxes = seen(*poses(4), MissingWedge(-40, 60))
    right, mirrored = search(MissingWedge(-40, 60))(boxes).score, search(MissingWedge(-60, 40))(boxes).score
    assert right.min() > 0.999 and mirrored.max() < 0.95


def test_a_turned_and_shifted_reference_gives_back_rotation_and_shift() -> None:
    rotations, shifts = poses(4, seed=3)
    given = torch.from_numpy(density())[None].expand(4, -1, -1, -1)
    made = rotate_volumes(given, rotations, shifts).numpy()  # its straight lines between voxels blur
    angle, distance = worst(search()(through(made, WEDGE.mask((BOX,) * 3))), rotations, shifts)
    assert angle < 0.5 and distance < 0.05


def test_ribosomes_in_noise_are_found() -> None:
    rotations, shifts = poses(10, seed=1)
    found = search()(noisy(seen(rotations, shifts), 0.1))
    angle = degrees(found.rotations, rotations)
    assert angle.mean() <= 3.0 and angle.max() < 15.0
    assert np.linalg.norm(found.shifts_px - shifts, axis=1).mean() < 0.25


def test_scores_and_poses_do_not_depend_on_scale_or_level() -> None:
    boxes = noisy(seen(*poses(3)), 0.1)
    first, other = search()(boxes), search()(1000 * boxes + 50)
    assert degrees(other.rotations, first.rotations).max() < 0.1
    np.testing.assert_allclose(other.shifts_px, first.shifts_px, atol=1e-3)
    np.testing.assert_allclose(other.score, first.score, atol=1e-4)
    assert np.all(np.abs(first.score) <= 1)


def test_poses_do_not_depend_on_the_scale_of_the_reference_or_of_the_weights() -> None:
    boxes = noisy(seen(*poses(2)), 0.1)
    band = search().fine
    heavy = replace(band, weight=1e6 * band.weight)
    other = Search.prepare(Reference.of(1000 * density()), heavy, QUICK)(boxes)
    first = search()(boxes)
    assert degrees(other.rotations, first.rotations).max() < 0.1
    np.testing.assert_allclose(other.score, first.score, atol=1e-4)


def test_the_shifts_that_screening_keeps_are_enough() -> None:
    boxes = noisy(seen(*poses(6)), 0.1)
    screened = search()(boxes)
    every = replace(search(), plan=replace(QUICK, shifts_kept=10_000))(boxes)
    assert degrees(screened.rotations, every.rotations).max() < 0.1
    np.testing.assert_allclose(screened.shifts_px, every.shifts_px, atol=0.01)


def test_weights_help_in_coloured_noise() -> None:
    k = np.sqrt(sum(f**2 for f in axis_frequencies((BOX,) * 3))) * BOX
    rotations, shifts = poses(10, seed=2)
    boxes = noisy(seen(rotations, shifts), 0.03, np.exp(-((k / 2) ** 2)) + 0.02)  # mostly where k < 3
    plain = degrees(search()(boxes).rotations, rotations)
    band = Band.measured(BOX, WEDGE, QUICK.fine, noise_power(boxes, WEDGE))
    weighted = degrees(Search.prepare(search().reference, band, QUICK)(boxes).rotations, rotations)
    assert np.mean(weighted < 15) >= 0.9 > 0.5 > np.mean(plain < 15)
    assert weighted.mean() < 0.2 * plain.mean()


def test_nothing_in_a_box_gives_a_score_of_zero_and_no_nan() -> None:
    boxes = np.concatenate([np.zeros((1, BOX, BOX, BOX), np.float32), seen(*poses(1))])
    found = search()(boxes)
    assert np.isfinite(found.rotations.as_quat()).all() and np.isfinite(found.shifts_px).all()
    assert found.score[0] == pytest.approx(0, abs=1e-6) and found.score[1] > 0.99


def test_given_rotations_are_searched_instead_of_the_grid() -> None:
    rotations, shifts = poses(3)
    near = Rotation.concatenate([rotations * Rotation.from_rotvec([0, 0, 0.1]), Rotation.identity(1)])
    plan = replace(QUICK, shift_px=0.0, candidates=2)
    found = Search.prepare(search().reference, search().fine, plan, near)(seen(rotations, 0 * shifts))
    assert worst(found, rotations, 0 * shifts)[0] < 0.2


def test_a_constant_reference_is_refused() -> None:
    with pytest.raises(InputError, match="constant map"):
        Reference.of(np.full((8, 8, 8), 3.0))
