"""The measures of realism: white noise and known arrangements give the numbers that mathematics says."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from benchmarks import realism
from benchmarks.realism import Measured, Scene
from tomotif.core import InputError, MissingWedge, Tomogram, Volume
from tomotif.pipelines.simulate import check_spec, read_spec
from tomotif.tasks.pick import PickSettings

VOXEL = 20.0


def scene(values: NDArray[np.floating], *, contrast: Any = "bright") -> Scene:
    """A volume that is cell everywhere, measured in all directions."""
    volume = Volume(values.astype(np.float32), VOXEL)
    return Scene.of(Tomogram(volume, "made", MissingWedge(-90, 90), contrast), np.ones(values.shape, dtype=bool))


def noise(*shape: int, seed: int = 0) -> NDArray[np.float64]:
    return np.random.default_rng(seed).standard_normal(shape)


def test_white_noise_has_power_one_in_every_shell() -> None:
    frequency, power = realism.spectrum(scene(noise(48, 96, 96)), size=32)
    assert frequency[0] == pytest.approx(1 / (32 * VOXEL)) and len(frequency) == 15
    assert power[3:] == pytest.approx(1.0, abs=0.05)  # the first shells have few coefficients, and lose the mean


def test_contrast_gain_and_offset_do_not_count() -> None:
    values = noise(32, 32, 32)
    bright, dark = scene(values), scene(7 - 3 * values, contrast="dark")
    np.testing.assert_allclose(dark.density, bright.density, atol=1e-5)
    assert abs(float(bright.density.mean())) < 1e-5 and float(bright.density.std()) == pytest.approx(1, abs=1e-5)


def test_only_measured_coefficients_are_in_the_spectrum() -> None:
    values = noise(64, 64, 64)
    spectrum = np.fft.rfftn(values)
    wedge = MissingWedge(-60, 60)
    spectrum[~wedge.mask(values.shape)] = 0
    cut = np.fft.irfftn(spectrum, s=values.shape, axes=(0, 1, 2)).astype(np.float32)
    inside = np.ones(values.shape, dtype=bool)
    _, seen = realism.spectrum(Scene.of(Tomogram(Volume(cut, VOXEL), "cut", wedge, "bright"), inside), size=32)
    _, diluted = realism.spectrum(scene(cut), size=32)
    assert np.median(seen / diluted) == pytest.approx(1 / wedge.measured_fraction, rel=0.1)


def test_the_error_is_the_mean_logarithm_of_the_ratio_within_the_band() -> None:
    frequency = np.arange(1, 32) / 1280
    flat = np.ones(31)
    assert realism.spectrum_error(frequency, flat, 2 * flat) == pytest.approx(math.log(2))
    assert realism.spectrum_error(frequency, 2 * flat, flat) == pytest.approx(math.log(2))
    outside = np.where((frequency < realism.BAND[0]) | (frequency > realism.BAND[1]), 100.0, 1.0)
    assert realism.spectrum_error(frequency, flat, outside) == 0
    assert np.count_nonzero(outside == 1) == 25  # shells 4 to 28: 320 Å to 46 Å


def test_local_means_of_white_noise_vary_as_the_gaussian_says() -> None:
    expected = (1 / (2 * math.sqrt(math.pi) * realism.SMOOTHING)) ** 1.5
    found = realism.local_contrast(scene(noise(64, 96, 96)))
    assert found["deviation"] == pytest.approx(expected, rel=0.05)  # a little more at the borders, which are mirrored
    assert found["q10"] <= found["q50"] <= found["q90"]
    assert found["q50"] == pytest.approx(expected, rel=0.07)
    assert abs(found["skewness"]) < 0.1
    assert found["over_noise"] == pytest.approx(1, abs=0.05)


def test_compact_dense_matter_skews_the_local_means() -> None:
    values = noise(64, 64, 64)
    values[8:56:12, 8:56:12, 8:56:12] += 60
    assert realism.local_contrast(scene(values))["skewness"] > 1


def test_windows_lie_inside_the_cell() -> None:
    inside = np.zeros((64, 80, 96), dtype=bool)
    inside[10:50, 20:70, 5:90] = True
    cubes = realism.windows(inside, 32, least=1.0)
    assert cubes and all(inside[cube].all() for cube in cubes)
    assert cubes[0] == (slice(10, 42), slice(20, 52), slice(5, 37))
    assert realism.windows(np.zeros((64, 64, 64), dtype=bool), 32) == []
    with pytest.raises(InputError, match="expected a cell that holds a cube of 64 voxels"):
        realism.spectrum(scene(noise(32, 32, 32)))


def test_neighbour_distances_of_a_lattice_are_its_spacing() -> None:
    spacing, radius = 15, 4.5
    z, y, x = np.ogrid[:75, :75, :75]
    offset = [np.abs((axis - 7) % spacing - spacing * (((axis - 7) % spacing) > spacing / 2)) for axis in (z, y, x)]
    balls = (offset[0] ** 2 + offset[1] ** 2 + offset[2] ** 2 <= radius**2).astype(float)
    found = realism.neighbour_distances(scene(balls + 0.05 * noise(75, 75, 75)), PickSettings(radius=(60.0, 110.0)))
    assert len(found) == 125
    assert np.median(found) == pytest.approx(spacing * VOXEL, rel=0.02)


def test_a_scene_against_itself_has_no_error() -> None:
    frequency = np.arange(1, 32) / 1280
    contrast = {"deviation": 0.2, "q10": 0.1, "q50": 0.2, "q90": 0.3, "skewness": 0.4, "over_noise": 1.5}
    distances = {name: np.array([100.0, 120.0, 140.0]) for name in realism.PICKS}
    one = Measured(frequency, np.ones(31), contrast, distances, 0.01)
    twice = Measured(frequency, np.ones(31), contrast, {k: np.tile(2 * d, 2) for k, d in distances.items()}, 0.01)
    same, sparse = one.against(one), twice.against(one)
    assert same.pop("spectrum_error") == 0 and same.pop("skewness") == 0.4
    assert set(same.values()) == {1.0}
    assert sparse["neighbour_distance_ratio"] == 2 and sparse["picks_per_um3_ratio_large"] == 2


def test_the_simulated_cell_is_where_complexes_lie() -> None:
    instances = np.zeros((64, 96, 96), dtype=np.uint16)
    filled = instances[12:52, :, :60]
    filled[noise(*filled.shape, seed=1) > 1] = 1
    volume = Volume(noise(64, 96, 96).astype(np.float32), VOXEL)
    made: Any = SimpleNamespace(
        instances=SimpleNamespace(data=instances), tomogram=Tomogram(volume, "made", MissingWedge(-60, 60), "dark")
    )
    inside = realism.simulated_scene(made).inside
    assert inside[32, 48, 10] and inside[32, 5, 30]
    assert not inside[:, :, 62:].any() and not inside[:8].any()
    assert inside[20:44, :, :50].mean() > 0.95


def test_the_real_cell_stands_out_from_its_noise() -> None:
    real = realism.real_scene()
    assert real.inside.sum() == pytest.approx(1.78e6, rel=0.01)
    assert len(realism.windows(real.inside, realism.BOX)) >= 8
    first, second = realism.halves(real)
    assert not np.any(first.inside & second.inside)
    assert len(realism.windows(first.inside, realism.BOX)) >= 2 <= len(realism.windows(second.inside, realism.BOX))


def test_the_preset_has_the_geometry_of_the_real_tomogram() -> None:
    spec, real = read_spec([realism.PRESET]), realism.real_scene().tomogram
    check_spec(spec)
    settings = spec.settings()
    assert settings.shape == real.shape and settings.voxel_size == pytest.approx(real.voxel_size)
    assert settings.missing_wedge == real.missing_wedge and settings.contrast == real.contrast
    assert len(settings.angles) == 41 and not settings.phase_flip
    assert realism.plain().settings().shape == settings.shape
