"""Structure → density, against analytic truth, gemmi and maps made by another program."""

from __future__ import annotations

import time
from pathlib import Path

import gemmi
import mrcfile
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from tomotif.core import InputError, Structure
from tomotif.io.structure import load_structure, read_structure
from tomotif.ops.ctf import ctf
from tomotif.ops.density import envelope_threshold, envelope_volume, splat, structure_density
from tomotif.ops.fourier import frequency_grid, half_space_weights, low_pass

DATA = Path(__file__).parent / "data"


def points(positions: list[list[float]], weights: list[float], spread: float = 0.0) -> Structure:
    n = len(weights)
    return Structure(
        "points",
        np.array(positions, dtype=np.float32),
        np.array(weights, dtype=np.float32),
        np.full(n, spread, dtype=np.float32),
        mass_kda=1.0,
    )


def correlation(a: NDArray[np.floating], b: NDArray[np.floating]) -> float:
    return float(np.corrcoef(a.ravel(), b.ravel())[0, 1])


@pytest.mark.parametrize("spread", [0.0, 3.0])
def test_a_point_becomes_the_gaussian_of_the_resolution_and_its_spread(spread: float) -> None:
    resolution, voxel = 24.0, 4.0
    shift = np.array([1.3, -2.2, 0.6])
    got = structure_density(
        points([[5, 5, 5]], [100], spread), voxel_size=voxel, resolution=resolution, shape=(24, 25, 26), shift=shift
    )
    variance = (resolution / (np.pi * np.sqrt(2))) ** 2 + spread**2
    axes = [(np.arange(n) - n // 2) * voxel - s for n, s in zip(got.shape, shift, strict=True)]
    squared = sum(a**2 for a in np.meshgrid(*axes, indexing="ij"))
    expected = 100 * np.exp(-squared / (2 * variance)) / (2 * np.pi * variance) ** 1.5
    np.testing.assert_allclose(got, expected, atol=0.005 * expected.max())


def test_the_sum_is_the_number_of_electrons_whatever_the_grid() -> None:
    structure = load_structure("1bxn")
    for voxel, resolution, edge in ((12.0, 24.0, 24), (10.0, 10.0, 30), (5.0, 20.0, 48)):
        density = structure_density(structure, voxel_size=voxel, resolution=resolution, shape=(edge, edge, edge))
        assert density.sum() * voxel**3 == pytest.approx(structure.weights.sum(), rel=2e-3)


def test_points_of_different_spread_keep_their_own() -> None:
    # two spreads so different that they need several levels; far apart, so that each can be looked at alone
    structure = points([[0, 0, -40], [0, 0, 40]], [50, 50])
    structure = Structure("p", structure.positions, structure.weights, np.array([0.5, 5.0], np.float32), 1.0)
    density = structure_density(structure, voxel_size=4.0, resolution=24.0, shape=(24, 24, 48))
    base = 24.0**2 / (2 * np.pi**2)
    for half, spread in ((density[:, :, :24], 0.5), (density[:, :, 24:], 5.0)):
        assert half.max() == pytest.approx(50 / (2 * np.pi * (base + spread**2)) ** 1.5, rel=0.01)


def test_rotation_and_shift_move_what_is_rendered() -> None:
    structure = points([[0, 0, 30], [0, 0, -30], [0, 15, 0], [0, -15, 0], [6, 0, 0], [-6, 0, 0]], [1, 2, 3, 4, 5, 6])
    quarter = Rotation.from_rotvec([90, 0, 0], degrees=True)  # about z: y → x, x → −y in zyx vectors
    still = structure_density(structure, voxel_size=6.0, resolution=24.0, shape=(21, 21, 21))
    turned = structure_density(structure, voxel_size=6.0, resolution=24.0, shape=(21, 21, 21), rotation=quarter)
    axes = np.argwhere(np.abs(quarter.as_matrix()) > 0.5)
    moved = np.transpose(still, axes[:, 1])
    for axis, source in axes:
        if quarter.as_matrix()[axis, source] < 0:
            moved = np.flip(moved, axis)
    np.testing.assert_allclose(turned, moved, atol=1e-5 * still.max() + 1e-7)
    shifted = structure_density(structure, voxel_size=6.0, resolution=24.0, shape=(21, 21, 21), shift=(6, -12, 18))
    np.testing.assert_allclose(shifted, np.roll(still, (1, -2, 3), (0, 1, 2)), atol=5e-3 * still.max())


def test_what_lies_outside_the_grid_does_not_come_back_on_the_other_side() -> None:
    structure = points([[0, 0, 0], [0, 0, 0.1]], [1.0, 1.0])
    density = structure_density(structure, voxel_size=5.0, resolution=20.0, shape=(16, 16, 16), shift=(0, 0, 40))
    assert np.abs(density[:, :, :8]).max() < 0.01 * density.max()


def test_density_agrees_with_gemmis_electron_density() -> None:
    path = DATA / "structures/1s3x.pdb.gz"
    model = gemmi.read_structure(str(path))
    model.remove_waters()
    model.remove_alternative_conformations()
    voxel, edge = 3.0, 48
    box = voxel * edge
    model.cell, model.spacegroup_hm = gemmi.UnitCell(box, box, box, 90, 90, 90), "P 1"
    centre = read_structure(path).centre_of_mass  # zyx; put where ours lies, at edge // 2
    move = gemmi.Position(*(box / 2 - centre[::-1]))
    for site in model[0].all():
        site.atom.pos += move
    calculator = gemmi.DensityCalculatorX()
    calculator.d_min, calculator.rate = 4.0, 2.0
    calculator.grid.setup_from(model)
    calculator.grid.set_size(3 * edge, 3 * edge, 3 * edge)
    calculator.set_refmac_compatible_blur(model[0])
    calculator.put_model_density_on_grid(model[0])
    fine = np.transpose(np.array(calculator.grid, copy=True))  # gemmi's first axis is x
    reference = low_pass(fine, voxel / 3, 30.0)[::3, ::3, ::3]
    ours = structure_density(read_structure(path), voxel_size=voxel, resolution=30.0, shape=(edge, edge, edge))
    assert correlation(ours, reference) >= 0.99
    # we count hydrogens, 15 % of a protein's other electrons
    assert ours.sum() * voxel**3 == pytest.approx(1.15 * fine.sum() * (voxel / 3) ** 3, rel=0.03)


@pytest.mark.parametrize("name", ["3j9i", "1u6g", "4v4r"])
def test_density_agrees_with_another_programs_map(name: str) -> None:
    # those maps keep the orientation of the entry, so that aligning them is a shift of the centre of mass
    with mrcfile.open(DATA / f"maps/{name}.mrc") as file:
        given, voxel = np.pad(file.data.astype(np.float32), 8), float(file.voxel_size.x)
    where = np.indices(given.shape).reshape(3, -1)
    centre = where @ given.ravel() / given.sum()
    shift = (centre - np.array(given.shape) // 2) * voxel
    nz, ny, nx = given.shape
    ours = structure_density(load_structure(name), voxel_size=voxel, resolution=10.0, shape=(nz, ny, nx), shift=shift)
    assert correlation(low_pass(ours, voxel, 30.0), low_pass(given, voxel, 30.0)) >= 0.98
    wrong = structure_density(
        load_structure("2fha"), voxel_size=voxel, resolution=10.0, shape=(nz, ny, nx), shift=shift
    )
    assert correlation(low_pass(wrong, voxel, 30.0), low_pass(given, voxel, 30.0)) < 0.9


def test_density_is_quick() -> None:
    structure = load_structure("1bxn")
    took = []
    for _ in range(4):
        begun = time.perf_counter()
        structure_density(structure, voxel_size=12.0, resolution=24.0, shape=(32, 32, 32))
        took.append(time.perf_counter() - begun)
    assert min(took) < 0.5  # about 0.04 s on an idle core


def test_impossible_voxels_are_refused() -> None:
    with pytest.raises(InputError, match="above 0"):
        structure_density(load_structure("1s3x"), voxel_size=0.0, resolution=20.0, shape=(8, 8, 8))


@settings(max_examples=25, deadline=None)
@given(
    where=st.lists(st.tuples(*[st.floats(2, 6)] * 3), min_size=1, max_size=8),
    weight=st.floats(0.1, 10),
)
def test_splat_keeps_weight_and_centre(where: list[tuple[float, float, float]], weight: float) -> None:
    grid = splat(np.array(where), np.full(len(where), weight), (9, 9, 9))
    assert grid.sum() == pytest.approx(weight * len(where), rel=1e-5)
    centre = np.indices(grid.shape).reshape(3, -1) @ grid.ravel() / grid.sum()
    np.testing.assert_allclose(centre, np.mean(where, axis=0), atol=1e-4)


def test_the_envelope_encloses_the_molecular_volume() -> None:
    structure = load_structure("1bxn")
    assert envelope_volume(structure) == pytest.approx(1210 * structure.mass_kda, rel=0.01)
    density = structure_density(structure, voxel_size=6.0, resolution=24.0, shape=(40, 40, 40))
    threshold = envelope_threshold(density, envelope_volume(structure) / 6.0**3)
    assert np.sum(density > threshold) == pytest.approx(envelope_volume(structure) / 6.0**3, abs=1)


def test_frequencies_and_weights_obey_parseval() -> None:
    volume = np.random.default_rng(0).standard_normal((6, 8, 10))
    power = np.abs(np.fft.rfftn(volume)) ** 2 * half_space_weights((6, 8, 10))
    assert power.sum() / volume.size == pytest.approx(np.sum(volume**2))
    grid = frequency_grid((6, 8, 10), 5.0)
    assert grid[0, 0, 5] == pytest.approx(0.1) and grid[3, 4, 5] == pytest.approx(np.sqrt(3) * 0.1)


def test_ctf_is_that_of_the_microscope() -> None:
    # from the definition, with the electron's wavelength at 300 kV, 0.0197 Å
    k = np.linspace(0, 0.05, 400, dtype=np.float32)
    phase = np.pi * 0.019687 * 3e4 * k**2 - np.pi / 2 * 2.7e7 * 0.019687**3 * k**4 + np.arcsin(0.07)
    np.testing.assert_allclose(ctf(k, 3.0), np.sin(phase), atol=2e-3)
    for defocus, first_zero in ((3.0, 24), (6.0, 34)):
        fine = np.linspace(0.01, 0.1, 5000)
        values = ctf(fine, defocus)
        assert 1 / fine[np.argmax(values < 0)] == pytest.approx(first_zero, abs=1)
