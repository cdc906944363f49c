"""The full path: what specimen, camera and reconstruction promise."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from pydantic import ValidationError

from tomotif.core import InputError, Structure
from tomotif.io.structure import load_structure
from tomotif.ops.density import structure_density
from tomotif.tasks.simulate import (
    FilamentSettings,
    GoldSettings,
    MembraneSettings,
    SimulatedTomogram,
    TomogramSettings,
    build_specimen,
    simulate_tomogram,
)
from tomotif.tasks.simulate.noise import noise_levels
from tomotif.tasks.simulate.tomogram import Camera

SHAPE = (48, 72, 64)
CLEAN = TomogramSettings(shape=SHAPE, counts=(4,), snr=None, contrast="bright", defocus_um=(3.0, 3.0))


@pytest.fixture(scope="module")
def rubisco() -> Structure:
    return load_structure("1bxn")


def simulated(structure: Structure, settings: TomogramSettings, seed: int = 0) -> SimulatedTomogram:
    return simulate_tomogram([structure], settings, np.random.default_rng(seed))


def correlation(a: NDArray[np.floating], b: NDArray[np.floating]) -> float:
    return float(np.corrcoef(a.ravel(), b.ravel())[0, 1])


def changed(settings: TomogramSettings, **update: object) -> TomogramSettings:
    return TomogramSettings.model_validate({**settings.model_dump(), **update})


# ---------------------------------------------------------------------------------------------- imaging


def test_phase_flipping_restores_what_the_ctf_turned_round(rubisco: Structure) -> None:
    flipped = simulated(rubisco, changed(CLEAN, defocus_um=(6, 6))).tomogram.volume.data
    raw = simulated(rubisco, changed(CLEAN, defocus_um=(6, 6), phase_flip=False)).tomogram.volume.data
    without = simulated(rubisco, changed(CLEAN, ctf=False)).tomogram.volume.data
    wave = np.abs(np.fft.fftfreq(SHAPE[2], 12.0))
    high = (wave > 1 / 33) & (wave < 1 / 25)  # between the first zero of 6 µm and Nyquist

    def agreement(a: NDArray[np.generic], b: NDArray[np.generic]) -> float:
        first, second = (np.fft.fft(v.astype(np.float64), axis=2)[..., high] for v in (a, b))
        return float(np.vdot(first, second).real / np.linalg.norm(first) / np.linalg.norm(second))

    assert agreement(flipped, without) > 0.5
    assert agreement(raw, without) < -0.5


def test_radiation_takes_the_detail_of_late_images(rubisco: Structure) -> None:
    fresh = simulated(rubisco, changed(CLEAN, exposure=0.0)).tilt_series
    damaged = simulated(rubisco, changed(CLEAN, exposure=5.0)).tilt_series
    ratio = damaged.images.std(axis=(1, 2)) / fresh.images.std(axis=(1, 2))
    middle = len(damaged) // 2
    assert damaged.exposure[middle] == 0 and damaged.exposure[0] == 200 and damaged.exposure.max() == 200
    assert ratio[middle] > 0.97
    assert ratio[0] < 0.75 and ratio[-1] < 0.75


def test_noise_grows_with_the_tilt_and_has_its_colour(rubisco: Structure) -> None:
    settings = changed(CLEAN, ice_thickness=570.0, snr=0.001, mtf=1.0)
    series = simulated(rubisco, settings).tilt_series
    level = series.images.std(axis=(1, 2))
    assert level[0] / level[20] == pytest.approx(np.exp(570 / 6200), rel=0.03)
    coloured = simulated(rubisco, changed(settings, noise_decay=20.0)).tilt_series
    power = (np.abs(np.fft.rfft(coloured.images[20], axis=1)) ** 2).mean(axis=0)
    k = np.fft.rfftfreq(coloured.images.shape[2], 12.0)
    white = (np.abs(np.fft.rfft(series.images[20], axis=1)) ** 2).mean(axis=0)
    near = lambda at: np.abs(k - at) < 3e-3  # noqa: E731
    fall = (power[near(1 / 30)].mean() / white[near(1 / 30)].mean()) / (power[near(0)].mean() / white[near(0)].mean())
    assert fall == pytest.approx(np.exp(-2 * (20 / 30) ** 2), rel=0.35)


@pytest.mark.parametrize(
    ("error", "highest"), [({"shift_jitter": 12.0}, 0.95), ({"axis_jitter": 8.0}, 0.97), ({"tilt_jitter": 8.0}, 0.97)]
)
def test_misaligned_images_blur_the_reconstruction(rubisco: Structure, error: dict[str, float], highest: float) -> None:
    exact = simulated(rubisco, CLEAN).tomogram.volume.data
    blurred = simulated(rubisco, changed(CLEAN, **error)).tomogram.volume.data
    assert 0.3 < correlation(blurred, exact) < highest
    slight = changed(CLEAN, **{key: value / 1000 for key, value in error.items()})
    assert correlation(simulated(rubisco, slight).tomogram.volume.data, exact) > 0.999


def test_an_unknown_defocus_error_costs_little_signal(rubisco: Structure) -> None:
    exact = simulated(rubisco, CLEAN).tomogram.volume.data
    off = simulated(rubisco, changed(CLEAN, defocus_jitter_um=0.1)).tomogram.volume.data
    assert 0.95 < correlation(off, exact) < 0.9999


def test_the_tilt_series_gives_the_tomogram(rubisco: Structure) -> None:
    made = simulated(rubisco, changed(CLEAN, snr=0.1, contrast="dark"))
    import torch

    camera = Camera.draw(changed(CLEAN, contrast="dark"), made.defocus_um, 0.0, np.random.default_rng(0))
    again = camera.reconstruct(torch.fft.rfft2(torch.from_numpy(-made.tilt_series.images)))
    np.testing.assert_allclose(again, made.tomogram.volume.data, atol=1e-4 * again.std())
    assert made.tilt_series.tilt_angles.tolist() == list(range(-60, 61, 3))


@pytest.mark.parametrize("name", ["1gyt", "4v5d"])
def test_each_class_has_the_snr_that_its_column_says(name: str) -> None:
    structure = load_structure(name)
    settings = TomogramSettings(shape=(56, 64, 64), snr=0.1, contrast="bright")  # 0.1 is rubisco's
    rng, signal, noise = np.random.default_rng(0), [], []
    level = noise_levels([structure], settings, 4.0)[0]
    box = tuple(slice(n // 2 - 16, n // 2 + 16) for n in settings.shape)
    from tomotif.core.geometry import random_rotations

    for turn in random_rotations(16, rng):
        camera = Camera.draw(settings, 4.0, level.noise_deviation, rng)
        density = structure_density(structure, voxel_size=12, resolution=25, shape=settings.shape, rotation=turn)
        signal.append(camera.reconstruct(camera.expose(density))[box].var())
        noise.append(camera.reconstruct(camera.noise(rng))[box].var())
    assert np.mean(signal) / np.mean(noise) == pytest.approx(level.snr, rel=0.1)
    assert (level.snr > 0.15) == (name == "4v5d")


@pytest.mark.parametrize("axis", ["x", "y"])
def test_any_scheme_of_tilts_can_be_taken(rubisco: Structure, axis: str) -> None:
    angles = (-42.0, -30.0, -11.0, 0.0, 7.0, 21.0, 33.0, 50.0)
    made = simulated(
        rubisco, changed(CLEAN, tilt_angles=angles, tilt_axis=axis, tilt_scheme="continuous", exposure=3.0)
    )
    wedge = made.tomogram.missing_wedge
    assert (wedge.tilt_min, wedge.tilt_max, wedge.tilt_axis) == (-42, 50, axis)
    assert made.tilt_series.tilt_angles.tolist() == list(angles)
    assert made.tilt_series.exposure.tolist() == [3.0 * i for i in range(8)]
    assert correlation(made.tomogram.volume.data, made.density) > 0.3


def test_a_series_of_one_image_is_refused() -> None:
    with pytest.raises(ValidationError, match="expected at least two images"):
        TomogramSettings(tilt_range=(0.0, 2.0))
    with pytest.raises(ValidationError, match="expected at least two images"):
        TomogramSettings(tilt_angles=(5.0, 5.0))


# ---------------------------------------------------------------------------------------------- specimen


def test_voxels_too_coarse_for_a_structure_are_refused() -> None:
    small = load_structure("1s3x")
    with pytest.raises(InputError, match=r"fine enough for 1s3x.*voxels of 30 Å; ask for at most 23\.4 Å"):
        build_specimen([small], changed(CLEAN, voxel_size=30.0, resolution=60.0), np.random.default_rng(0))


def test_ice_is_a_slab_and_the_rest_is_empty(rubisco: Structure) -> None:
    made = build_specimen([rubisco], changed(CLEAN, ice_thickness=360.0), np.random.default_rng(0))
    assert made.room == 30 * 72 * 64
    heights = np.flatnonzero(made.instances.data.any(axis=(1, 2)))
    assert heights.min() >= 9 and heights.max() < 39


def test_particles_differ_in_contrast_and_in_how_alone_they_are(rubisco: Structure) -> None:
    settings = changed(CLEAN, counts=None, occupancy=0.15, contrast_spread=0.4, snr=0.1)
    made = simulated(rubisco, settings)
    gain = made.particles["gain"].to_numpy()
    assert gain.std() == pytest.approx(0.4, rel=0.3) and gain.mean() == pytest.approx(1, abs=0.15)
    np.testing.assert_allclose(made.particles["snr"] / gain**2, 0.1, rtol=1e-6)
    visible = made.particles["visibility"].to_numpy()
    assert 0.05 < visible.min() < 0.6 and visible.max() <= 1
    alone = simulated(rubisco, changed(CLEAN, counts=(1,)))
    assert alone.particles["visibility"][0] == pytest.approx(1, abs=1e-4)
    brightest = np.array([made.density[made.instances.data == i + 1].mean() for i in range(len(gain))])
    assert np.corrcoef(brightest, gain)[0, 1] > 0.95


def test_distractors_are_there_and_have_no_class_of_their_own(rubisco: Structure) -> None:
    settings = changed(CLEAN, distractors=("1gyt", "2cg9"), distractor_occupancy=0.03)
    made = build_specimen([rubisco], settings, np.random.default_rng(0))
    counts = made.particles["class"].value_counts()
    assert counts["1bxn"] == 4 and counts["distractor"] > 4 and len(counts) == 2
    assert {source[:8] for source in made.particles["structure"]} == {"PDB 1BXN", "PDB 1GYT", "PDB 2CG9"}
    assert set(made.classes.names.values()) == {"1bxn", "distractor"}


def test_a_cell_has_an_envelope_with_its_complexes_inside(rubisco: Structure) -> None:
    cell = MembraneSettings(kind="cell", radius=(600.0, 700.0), roughness=0.02, crossing=("5t4o",), per_um2=9000)
    settings = changed(CLEAN, shape=(48, 96, 96), counts=None, occupancy=0.1, membranes=[cell.model_dump()])
    made = build_specimen([rubisco], settings, np.random.default_rng(1))
    label = {name: number for number, name in made.classes.names.items()}
    membrane = made.classes.data == label["membrane"]
    assert 0.005 < membrane.mean() < 0.1
    assert made.room < 0.95 * made.density.size
    assert made.occupancy == pytest.approx(0.1, rel=0.2)
    assert made.density[membrane].mean() > 0.15  # denser than water, as lipid is
    crossing = made.particles.take(made.particles["class"].to_numpy() == "5t4o")
    assert len(crossing) > 0
    at = np.argwhere(membrane) * 12.0
    for place in crossing.position:  # they are in it, the others are not
        assert np.linalg.norm(at - place, axis=1).min() < 60
    assert np.array_equal(made.instances.data > 0, np.isin(made.classes.data, [label["1bxn"], label["5t4o"]]))


def test_vesicles_filaments_and_gold_are_labelled_and_keep_complexes_off(rubisco: Structure) -> None:
    settings = changed(
        CLEAN,
        shape=(64, 96, 96),
        counts=None,
        occupancy=0.08,
        membranes=[MembraneSettings(radius=(150.0, 220.0), count=1).model_dump()],
        filaments=[FilamentSettings(count=2).model_dump(), FilamentSettings(kind="microtubule", count=1).model_dump()],
        gold=[GoldSettings(count=2).model_dump()],
    )
    made = build_specimen([rubisco], settings, np.random.default_rng(0))
    label = {name: number for number, name in made.classes.names.items()}
    assert {"membrane", "actin", "microtubule", "gold"} <= set(label)
    sizes = {name: np.count_nonzero(made.classes.data == number) for name, number in label.items()}
    assert min(sizes.values()) > 20
    assert sizes["gold"] * 12.0**3 == pytest.approx(2 * np.pi / 6 * 100**3, rel=0.4)
    scenery = np.isin(made.classes.data, [label[n] for n in ("membrane", "actin", "microtubule", "gold")])
    assert not made.instances.data[scenery].any()
    assert made.density[made.classes.data == label["gold"]].max() > 10
    again = build_specimen([rubisco], settings, np.random.default_rng(0))
    assert again.density.tobytes() == made.density.tobytes()


def test_planes_go_through_the_volume(rubisco: Structure) -> None:
    settings = changed(CLEAN, membranes=[MembraneSettings(kind="plane", bound=("1bxn",), per_um2=20000).model_dump()])
    made = build_specimen([rubisco], settings, np.random.default_rng(3))
    membrane = made.classes.data == next(n for n, name in made.classes.names.items() if name == "membrane")
    assert membrane.sum() * 12.0**3 == pytest.approx(50.0 * 48 * 68 * 144, rel=0.7)  # some 50 Å thick
    assert len(made.particles) > 4  # the four asked for, and those bound
