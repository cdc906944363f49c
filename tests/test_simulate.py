"""Simulated subtomograms and tomograms are what they say they are."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray
from pydantic import ValidationError
from scipy.ndimage import center_of_mass
from scipy.spatial.transform import Rotation

import tomotif.tasks.simulate.subtomograms as paths
from tomotif.core import BACKGROUND, InputError, MissingWedge, Structure, Subtomograms, UnknownNameError
from tomotif.io.mrc import open_labels
from tomotif.io.star import read_particles, read_tomograms
from tomotif.io.structure import load_structure
from tomotif.ops.density import envelope_volume, structure_density
from tomotif.ops.packing import Neighbours, outermost_points, overlap, reach
from tomotif.tasks.simulate import (
    SimulatedTomogram,
    SubtomogramSettings,
    TomogramSettings,
    picking_radius,
    signal_to_noise,
    simulate_subtomograms,
    simulate_tomogram,
)
from tomotif.tasks.simulate.templates import templates

NAMES = ("1s3x", "1bxn", "5t4o", "4v5d")
SMALL = (48, 96, 80)


@pytest.fixture(scope="module")
def structures() -> list[Structure]:
    return [load_structure(name) for name in NAMES]


@pytest.fixture(scope="module")
def crowded(structures: list[Structure]) -> SimulatedTomogram:
    return simulate_tomogram(
        structures, TomogramSettings(shape=SMALL, occupancy=0.12), np.random.default_rng(0), "crowded"
    )


def densities(sub: Subtomograms) -> NDArray[np.float32]:
    """The boxes before the z-score."""
    deviation, mean = (sub.particles[c].to_numpy(dtype=np.float32)[:, None, None, None] for c in ("deviation", "mean"))
    return sub.stack.astype(np.float32) * deviation + mean


def correlation(a: NDArray[np.floating], b: NDArray[np.floating]) -> float:
    return float(np.corrcoef(a.ravel(), b.ravel())[0, 1])


def power_outside(volume: NDArray[np.floating], wedge: MissingWedge) -> float:
    power = np.abs(np.fft.rfftn(volume - volume.mean())) ** 2
    nz, ny, nx = volume.shape
    power[nz // 2], power[:, ny // 2], power[..., nx // 2] = 0, 0, 0  # Nyquist lies on both sides of the wedge
    return float(power[~wedge.mask((nz, ny, nx))].sum() / power.sum())


# ---------------------------------------------------------------------------------------------- single boxes


def test_boxes_are_zscored_and_described(structures: list[Structure]) -> None:
    settings = SubtomogramSettings(count=8, background=4, neighbours=2)
    sub = simulate_subtomograms(structures, settings, np.random.default_rng(0))
    assert sub.stack.shape == (36, 32, 32, 32) and sub.stack.dtype == np.float16
    assert sub.voxel_size == 12.0 and sub.missing_wedge == MissingWedge(-60, 60)
    counts = sub.particles["class"].value_counts().to_dict()
    assert counts == {**dict.fromkeys(NAMES, 8), BACKGROUND: 4}
    values = sub.stack.astype(np.float64)
    np.testing.assert_allclose(values.mean(axis=(1, 2, 3)), 0, atol=2e-3)
    np.testing.assert_allclose(values.std(axis=(1, 2, 3)), 1, atol=2e-3)
    shift = sub.particles.columns[["shift_z", "shift_y", "shift_x"]].to_numpy()
    np.testing.assert_allclose(sub.particles.position, shift + 16 * 12.0)
    assert 12 < np.abs(shift).max() <= 24
    assert sub.particles["defocus_um"].between(2, 6).all()
    order = sub.particles["class"].to_list()
    assert order != sorted(order)


def test_same_seed_same_bytes_on_any_number_of_threads(
    structures: list[Structure], monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = SubtomogramSettings(count=20, neighbours=1)
    first = simulate_subtomograms(structures[:2], settings, np.random.default_rng(5))
    monkeypatch.setattr(paths, "cpu_count", lambda: 1)
    again = simulate_subtomograms(structures[:2], settings, np.random.default_rng(5))
    other = simulate_subtomograms(structures[:2], settings, np.random.default_rng(6))
    assert first.stack.tobytes() == again.stack.tobytes() != other.stack.tobytes()
    pd.testing.assert_frame_equal(first.particles.columns, again.particles.columns)


@pytest.mark.parametrize("snr", [0.05, 0.5])
def test_snr_is_what_was_asked_for_each_structure(structures: list[Structure], snr: float) -> None:
    asked = SubtomogramSettings(count=64, snr=snr)
    noisy = simulate_subtomograms(structures, asked, np.random.default_rng(1))
    clean = simulate_subtomograms(structures, asked.model_copy(update={"snr": None}), np.random.default_rng(1))
    signal, noise = densities(clean), densities(noisy) - densities(clean)
    for name in NAMES:
        rows = (noisy.particles["class"] == name).to_numpy()
        measured = signal[rows].var(axis=(1, 2, 3)).mean() / noise[rows].var(axis=(1, 2, 3)).mean()
        assert measured == pytest.approx(snr, rel=0.1), name


def test_snr_of_a_reference_makes_the_noise_the_same_for_all(structures: list[Structure]) -> None:
    settings = SubtomogramSettings(count=32, snr=0.2, snr_reference="1bxn")
    noisy = simulate_subtomograms(structures, settings, np.random.default_rng(1))
    clean = simulate_subtomograms(structures, settings.model_copy(update={"snr": None}), np.random.default_rng(1))
    noise = (densities(noisy) - densities(clean)).std(axis=(1, 2, 3))
    assert noise.std() / noise.mean() < 0.02
    table = signal_to_noise(structures, settings).set_index("class")
    assert table.loc["1bxn", "snr"] == pytest.approx(0.2)
    assert table.loc["1s3x", "snr"] < 0.05 < 0.4 < table.loc["4v5d", "snr"]
    signal = densities(clean)[(clean.particles["class"] == "4v5d").to_numpy()].var(axis=(1, 2, 3)).mean()
    assert signal / noise.mean() ** 2 == pytest.approx(table.loc["4v5d", "snr"], rel=0.15)


def test_snr_inside_the_signal_band_is_told(structures: list[Structure]) -> None:
    settings = SubtomogramSettings(count=48, snr=0.1)
    table = signal_to_noise(structures[1:2], settings)
    noisy = simulate_subtomograms(structures[1:2], settings, np.random.default_rng(1))
    clean = simulate_subtomograms(structures[1:2], settings.model_copy(update={"snr": None}), np.random.default_rng(1))
    axes = [np.fft.fftfreq(32, 12.0)] * 3
    k = np.sqrt(sum(a**2 for a in np.meshgrid(*axes, indexing="ij", sparse=True)))
    band = (k > 0) & (k < 1 / 30)
    signal = (np.abs(np.fft.fftn(densities(clean), axes=(1, 2, 3))) ** 2)[:, band].sum()
    noise = (np.abs(np.fft.fftn(densities(noisy) - densities(clean), axes=(1, 2, 3))) ** 2)[:, band].sum()
    assert signal / noise == pytest.approx(table.loc[0, "snr_band"], rel=0.1)
    assert 0.2 < table.loc[0, "snr_band"] < 0.6


def test_noise_can_be_coloured(structures: list[Structure]) -> None:
    settings = SubtomogramSettings(count=8, snr=0.001, noise_decay=30.0)
    boxes = simulate_subtomograms(structures[:1], settings, np.random.default_rng(0)).stack.astype(np.float32)
    power = (np.abs(np.fft.rfftn(boxes, axes=(1, 2, 3))) ** 2).mean(axis=0)
    ratio = power[0, 0, 12] / power[0, 0, 3:5].mean()  # k of 12/384 against 3.5/384 Å⁻¹
    assert ratio == pytest.approx(12 / 3.5 * np.exp(-2 * 30**2 * (12**2 - 3.5**2) / 384**2), rel=0.8)
    table = signal_to_noise(structures[:1], settings)
    white = signal_to_noise(structures[:1], settings.model_copy(update={"noise_decay": 0.0}))
    assert table.loc[0, "snr_band"] < 0.6 * white.loc[0, "snr_band"]


@pytest.mark.parametrize(("tilt_range", "axis"), [((-60.0, 60.0), "y"), ((-40.0, 50.0), "x")])
def test_nothing_lies_in_the_missing_wedge(
    structures: list[Structure], tilt_range: tuple[float, float], axis: str
) -> None:
    settings = SubtomogramSettings.model_validate({"count": 2, "tilt_range": tilt_range, "tilt_axis": axis})
    sub = simulate_subtomograms(structures[:2], settings, np.random.default_rng(0))
    for box in sub.stack.astype(np.float64):
        assert power_outside(box, sub.missing_wedge) < 1e-5
        assert power_outside(box, MissingWedge(-30, 30)) > 0.2


def test_orientation_and_shift_are_the_true_ones(structures: list[Structure]) -> None:
    settings = SubtomogramSettings(count=3, snr=None, ctf=False, tilt_range=(-90.0, 90.0), exposure=0, mtf=1)
    sub = simulate_subtomograms(structures, settings, np.random.default_rng(3))
    shift = sub.particles.columns[["shift_z", "shift_y", "shift_x"]].to_numpy()
    for i, name in enumerate(sub.particles["class"]):
        truth = structure_density(
            load_structure(name),
            voxel_size=12.0,
            resolution=25.0,
            shape=(32, 32, 32),
            rotation=sub.particles.orientation[i],
            shift=shift[i],
        )
        assert correlation(sub.stack[i].astype(np.float32), truth) > 0.99


def test_orientations_are_uniform(structures: list[Structure]) -> None:
    settings = SubtomogramSettings(count=2000, box_px=8, snr=None, resolution=60.0, voxel_size=40.0)
    turned = simulate_subtomograms(structures[:1], settings, np.random.default_rng(0)).particles.orientation
    assert np.abs(turned.as_matrix().mean(axis=0)).max() < 0.05
    # Haar: the angle of rotation has density (1 - cos a) / 180°
    assert np.degrees(turned.magnitude()).mean() == pytest.approx(90 + 360 / np.pi**2, abs=2)


def test_ctf_takes_away_the_low_frequencies(structures: list[Structure]) -> None:
    base = SubtomogramSettings(count=16, snr=None, defocus_um=(3.0, 3.0), tilt_range=(-90.0, 90.0), max_shift_px=0)
    with_ctf = densities(simulate_subtomograms(structures[3:], base, np.random.default_rng(0)))
    without = densities(
        simulate_subtomograms(structures[3:], base.model_copy(update={"ctf": False}), np.random.default_rng(0))
    )
    ratio = np.abs(np.fft.rfftn(with_ctf[0])) / np.abs(np.fft.rfftn(without[0]))
    assert ratio[0, 0, 0] == pytest.approx(0.07, abs=0.01)
    k = 8 / 384
    phase = np.pi * 0.019687 * 3e4 * k**2 - np.pi / 2 * 2.7e7 * 0.019687**3 * k**4 + np.arcsin(0.07)
    assert ratio[0, 0, 8] == pytest.approx(abs(np.sin(phase)), abs=0.02)


def test_neighbours_keep_off_the_particle_in_the_middle(structures: list[Structure]) -> None:
    # the same seed draws the same particle with and without neighbours
    alone = SubtomogramSettings(count=12, snr=None, ctf=False, tilt_range=(-90.0, 90.0))
    without = densities(simulate_subtomograms(structures, alone, np.random.default_rng(2)))
    together = densities(
        simulate_subtomograms(structures, alone.model_copy(update={"neighbours": 4}), np.random.default_rng(2))
    )
    added = together - without
    assert np.mean(added.max(axis=(1, 2, 3)) > 0.2) > 0.9  # they are there, as dense as proteins are
    inside = without > 0.5 * without.max(axis=(1, 2, 3), keepdims=True)
    assert added[inside].mean() < 0.03 * added.max()


def test_background_boxes_have_an_empty_middle(structures: list[Structure]) -> None:
    settings = SubtomogramSettings(count=1, background=40, neighbours=3, snr=None, ctf=False, tilt_range=(-90.0, 90.0))
    sub = simulate_subtomograms(structures[1:2], settings, np.random.default_rng(2))
    rows = (sub.particles["class"] == BACKGROUND).to_numpy()
    boxes = densities(sub)[rows]
    assert boxes.max(axis=(1, 2, 3)).min() > 0.1
    assert boxes[:, 16, 16, 16].mean() < 0.35 * boxes.max(axis=(1, 2, 3)).mean()


def test_fast_path_agrees_with_a_box_cut_from_a_tomogram() -> None:
    rubisco = load_structure("1bxn")
    whole = simulate_tomogram(
        [rubisco],
        TomogramSettings(shape=(96, 96, 96), counts=(1,), snr=None, contrast="bright"),
        np.random.default_rng(4),
    )
    centre = np.round(whole.particles.position[0] / 12.0).astype(int)
    assert np.all((centre > 8) & (centre < 88))
    wrapped = np.roll(whole.tomogram.volume.data, tuple(16 - centre), (0, 1, 2))[:32, :32, :32]
    settings = SubtomogramSettings(count=1, snr=None)
    scene = paths._Scene(
        np.zeros(1, dtype=np.int64),
        whole.particles.orientation,
        whole.particles.position - centre * 12.0,
        np.array([whole.defocus_um]),
        Neighbours(np.zeros(0, np.int64), np.zeros(0, np.int64), Rotation.identity(0), np.zeros((0, 3))),
    )
    image = paths._imager(scene, templates([rubisco], settings), settings, np.zeros(1))
    fast = image(np.zeros(1, dtype=np.int64), np.random.default_rng(0))[0].numpy()[0]
    assert correlation(fast, wrapped) >= 0.95
    shells = np.round(np.linalg.norm(np.indices((32, 32, 32)) - 16.0, axis=0)).astype(int).ravel()
    power = [
        np.bincount(shells, (np.abs(np.fft.fftshift(np.fft.fftn(box))) ** 2).ravel())[1:11] for box in (fast, wrapped)
    ]
    assert power[0].sum() / power[1].sum() == pytest.approx(1, rel=0.1)
    assert np.median(np.abs(power[0] / power[1] - 1)) < 0.1


def test_a_given_stack_is_filled(structures: list[Structure]) -> None:
    settings = SubtomogramSettings(count=4)
    stack = np.zeros((4, 32, 32, 32), dtype=np.float16)
    sub = simulate_subtomograms(structures[:1], settings, np.random.default_rng(0), stack=stack)
    assert sub.stack is stack and stack.astype(np.float64).std() == pytest.approx(1, abs=0.01)
    with pytest.raises(InputError, match=r"expected a stack of shape \(4, 32, 32, 32\) to fill, got \(3,"):
        simulate_subtomograms(structures[:1], settings, np.random.default_rng(0), stack=stack[:3])


def test_bad_settings_and_names_are_refused(structures: list[Structure]) -> None:
    with pytest.raises(ValidationError, match="tilt range"):
        SubtomogramSettings(tilt_range=(60.0, -60.0))
    with pytest.raises(ValidationError, match="defocus range"):
        TomogramSettings(defocus_um=(6.0, 2.0))
    with pytest.raises(ValidationError, match="snr"):
        TomogramSettings(snr=0.0)
    with pytest.raises(InputError, match="'1s3x' twice"):
        simulate_subtomograms([structures[0]] * 2, SubtomogramSettings(count=1), np.random.default_rng(0))
    with pytest.raises(InputError, match="at least one structure"):
        simulate_tomogram([], TomogramSettings(), np.random.default_rng(0))
    with pytest.raises(InputError, match="one number for each of 4 structures"):
        simulate_tomogram(structures, TomogramSettings(counts=(1, 2)), np.random.default_rng(0))
    with pytest.raises(UnknownNameError, match="unknown structure '9xyz'"):
        simulate_subtomograms(
            structures[:1], SubtomogramSettings(count=1, snr_reference="9xyz"), np.random.default_rng(0)
        )


# ---------------------------------------------------------------------------------------------- tomograms


def test_a_tomogram_has_the_occupancy_and_the_truth_asked_for(
    crowded: SimulatedTomogram, structures: list[Structure]
) -> None:
    assert crowded.occupancy == pytest.approx(0.12, rel=0.05)
    assert crowded.tomogram.shape == SMALL and crowded.tomogram.contrast == "dark"
    assert set(crowded.particles["class"]) == set(NAMES)
    assert len(set(crowded.particles["class"].value_counts())) == 1  # equally many by default
    assert (crowded.particles.tomogram == "crowded").all()
    radii = crowded.particles.columns.groupby("class")["radius"].first()
    assert radii["1bxn"] == pytest.approx(picking_radius(load_structure("1bxn"))) == pytest.approx(59, abs=3)
    extent = np.array(SMALL) * 12.0
    assert np.all((crowded.particles.position > 0) & (crowded.particles.position < extent))


def test_labels_are_envelopes_at_the_positions(crowded: SimulatedTomogram) -> None:
    instances, classes = crowded.instances.data, crowded.classes.data
    n = len(crowded.particles)
    assert instances.max() == n and crowded.classes.names == dict(enumerate(sorted(NAMES), start=1))
    # no voxel was lost to another particle: every envelope has its molecule's volume
    sizes = np.bincount(instances.ravel())[1:]
    volumes = np.array([envelope_volume(load_structure(c)) for c in crowded.particles["class"]]) / 12.0**3
    np.testing.assert_allclose(sizes, volumes, rtol=0.35)
    assert sizes.sum() == pytest.approx(volumes.sum(), rel=0.05)
    centres = np.array(center_of_mass(instances > 0, instances, np.arange(1, n + 1))) * 12.0
    assert np.median(np.linalg.norm(centres - crowded.particles.position, axis=1)) < 6
    for row in range(0, n, 5):
        assert set(classes[instances == row + 1]) == {sorted(NAMES).index(crowded.particles["class"][row]) + 1}
    assert np.array_equal(classes > 0, instances > 0)


def test_poses_put_the_references_into_the_noise_free_volume(structures: list[Structure]) -> None:
    settings = TomogramSettings(shape=SMALL, occupancy=0.1, snr=None)
    made = simulate_tomogram(structures, settings, np.random.default_rng(7))
    rebuilt = np.zeros(SMALL, dtype=np.float32)
    for row, name in enumerate(made.particles["class"]):
        place = made.particles.position[row] / 12.0
        nearest = np.round(place).astype(int)
        stamp = structure_density(
            load_structure(name),
            voxel_size=12.0,
            resolution=25.0,
            shape=(36, 36, 36),
            rotation=made.particles.orientation[row],
            shift=(place - nearest) * 12.0,
        )
        inside, kept = overlap(SMALL, 36, nearest)
        rebuilt[inside] += stamp[kept]
    assert correlation(rebuilt, made.density) > 0.99


def test_snr_of_a_tomogram_is_rubiscos(structures: list[Structure]) -> None:
    settings = TomogramSettings(shape=(64, 64, 64), counts=(1,), snr=0.1)
    ratios = []
    for seed in range(12):
        made = simulate_tomogram(structures[1:2], settings, np.random.default_rng(seed))
        noise = made.tomogram.volume.data - made.noise_free
        centre = np.round(made.particles.position[0] / 12.0).astype(int)
        signal = np.roll(made.noise_free, tuple(16 - centre), (0, 1, 2))[:32, :32, :32]
        ratios.append(signal.var() / noise.var())
    assert np.mean(ratios) == pytest.approx(0.1, rel=0.1)
    mixed = simulate_tomogram([structures[0]], settings, np.random.default_rng(0))
    only = simulate_tomogram([structures[1]], settings, np.random.default_rng(0))
    levels = [np.std(m.tomogram.volume.data - m.noise_free) for m in (mixed, only)]
    assert levels[0] == pytest.approx(levels[1], rel=0.02)  # 1bxn need not be in it


def test_a_tomogram_is_dark_unless_asked_and_empty_in_the_missing_wedge(
    crowded: SimulatedTomogram, structures: list[Structure]
) -> None:
    data = crowded.tomogram.volume.data
    window = np.hanning(data.shape[0])[:, None, None] * np.hanning(data.shape[2])
    assert power_outside(data * window, MissingWedge(-63, 63)) < 0.02
    # CTF takes the mean away, so contrast shows against the surroundings
    inside = crowded.instances.data > 0
    assert crowded.noise_free[inside].mean() < crowded.noise_free[~inside].mean()
    assert data[inside].mean() < data[~inside].mean()
    settings = TomogramSettings(shape=SMALL, occupancy=0.12, contrast="bright")
    bright = simulate_tomogram(structures, settings, np.random.default_rng(0), "crowded")
    np.testing.assert_allclose(bright.noise_free, -crowded.noise_free, atol=1e-6)


def test_tomograms_of_one_seed_are_the_same_bytes(crowded: SimulatedTomogram, structures: list[Structure]) -> None:
    again = simulate_tomogram(
        structures, TomogramSettings(shape=SMALL, occupancy=0.12), np.random.default_rng(0), "crowded"
    )
    assert np.asarray(again.tomogram.volume.data).tobytes() == np.asarray(crowded.tomogram.volume.data).tobytes()
    assert again.instances.data.tobytes() == crowded.instances.data.tobytes()
    assert again.particles.orientation.as_quat().tobytes() == crowded.particles.orientation.as_quat().tobytes()


def test_cytoplasm_is_reached_and_more_than_fits_is_an_error(structures: list[Structure]) -> None:
    made = simulate_tomogram(structures, TomogramSettings(shape=SMALL, occupancy=0.2), np.random.default_rng(0))
    assert made.occupancy == pytest.approx(0.2, rel=0.05)
    with pytest.raises(InputError, match=r"expected room for \d+ of .* an occupancy of 0\.\d+ reached"):
        simulate_tomogram(structures[3:], TomogramSettings(shape=SMALL, occupancy=0.6), np.random.default_rng(0))
    with pytest.raises(InputError, match=r"found it for [01], "):
        simulate_tomogram(structures[3:], TomogramSettings(shape=(16, 64, 64)), np.random.default_rng(0))


def test_numbers_and_abundances_are_kept(structures: list[Structure]) -> None:
    counts = TomogramSettings(shape=SMALL, counts=(3, 2, 1, 0), snr=None)
    made = simulate_tomogram(structures, counts, np.random.default_rng(0))
    assert made.particles["class"].value_counts().to_dict() == {"1s3x": 3, "1bxn": 2, "5t4o": 1}
    shares = TomogramSettings(shape=SMALL, occupancy=0.05, abundances=(4.0, 2.0, 0.0, 0.0), snr=None)
    numbers = simulate_tomogram(structures, shares, np.random.default_rng(0)).particles["class"].value_counts()
    assert numbers["1s3x"] / numbers["1bxn"] == pytest.approx(2, rel=0.1) and len(numbers) == 2


def test_the_command_writes_a_run_folder_that_can_be_read_back(tmp_path: Path) -> None:
    from tomotif.cli.simulate import TomogramOptions, simulate  # slow to import: it knows every stage

    settings = TomogramOptions(shape=(32, 48, 40), counts=(2, 1))
    simulate(["1bxn", "1s3x"], output=tmp_path / "run", count=2, seed=3, settings=settings)
    tomograms = read_tomograms(tmp_path / "run/tomograms.star")
    assert [t.name for t in tomograms] == ["simulated_000", "simulated_001"]
    truth = read_particles(tmp_path / "run/particles.star")
    assert truth["class"].value_counts().to_dict() == {"1bxn": 4, "1s3x": 2}
    instances = open_labels(tmp_path / "run/simulated_001_instances.mrc").data
    classes = open_labels(tmp_path / "run/simulated_001_classes.mrc")
    mine = truth.of_tomogram("simulated_001")
    for row, name in enumerate(mine["class"]):
        place = np.argwhere(instances == row + 1).mean(axis=0) * 12.0
        assert np.linalg.norm(place - mine.position[row]) < 12
        labels = set(classes.data[instances == row + 1].tolist())
        assert [classes.names[label] for label in labels] == [name]
    assert tomograms[0].volume.data.std() > 0 and tomograms[0].contrast == "dark"


def test_none_as_text_means_no_noise() -> None:
    assert TomogramSettings.model_validate({"snr": "none"}).snr is None
    assert TomogramSettings.model_validate({"snr": "0.2"}).snr == 0.2


# ---------------------------------------------------------------------------------------------- placement


def test_bodies_reach_as_far_as_their_points() -> None:
    structure = load_structure("5t4o")
    rng = np.random.default_rng(0)
    rotations = Rotation.random(20, rng)
    direction = rng.standard_normal((20, 3))
    direction /= np.linalg.norm(direction, axis=1, keepdims=True)
    got = reach([outermost_points(structure.positions)], np.zeros(20, dtype=np.int64), rotations, direction)
    true = [(r.apply(structure.positions) @ d).max() for r, d in zip(rotations, direction, strict=True)]
    assert np.all(got <= np.array(true) + 1e-3) and np.all(got > np.array(true) - 5)
