"""Averaging with given poses: an object that is a formula is got back from turned, wedge-filtered copies."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from tomotif.cli.app import main
from tomotif.core import InputError, MissingWedge, Particles, Subtomograms
from tomotif.core.geometry import radius_grid, random_rotations
from tomotif.io.mrc import open_tomogram, open_volume, write_volume
from tomotif.io.run_folder import run_folder
from tomotif.io.stack import create_stack, read_subtomograms, write_subtomogram_table
from tomotif.io.star import read_tomograms, write_particles, write_tomograms
from tomotif.io.structure import load_structure
from tomotif.ops.average import FourierSum, batch_size, fourier_sum, wedge_weighted_average
from tomotif.ops.density import structure_density
from tomotif.ops.fsc import fsc, resolution_at, soft_sphere
from tomotif.ops.rotate import rotate_volumes
from tomotif.tasks.average import AverageSettings, average
from tomotif.tasks.simulate import SubtomogramSettings, simulate_subtomograms

Volume = NDArray[np.float32]

# Gaussians in voxels zyx, no two arms alike: neither a mirror nor a rotation nor a swap of axes maps it to itself
CENTRES = np.array([[0, 0, 0], [6, 0, 0], [0, 5, 0], [-3, -2, 6], [2, -7, -3], [-6, 4, -2.0]])
HEIGHTS = np.array([2, 1.5, 1, 1.2, 0.8, 1.0])
WEDGE = MissingWedge(-60, 60)
VOXEL = 10.0


def render(
    rotation: Rotation | None = None, shift: NDArray[np.float64] | float = 0.0, *, box: int = 32, width: float = 1.4
) -> Volume:
    """The object turned actively about the box's centre and then shifted (voxels zyx), evaluated point by point."""
    centres = CENTRES - CENTRES.mean(axis=0)
    placed = (centres if rotation is None else rotation.apply(centres)) + shift + box // 2
    grid = np.arange(box)
    axes = [np.exp(-((grid - placed[:, i, None]) ** 2) / (2 * width**2)) for i in range(3)]
    return np.einsum("p,pz,py,px->zyx", HEIGHTS, *axes).astype(np.float32)


def filtered(volume: NDArray[np.floating], wedge: MissingWedge = WEDGE) -> Volume:
    """Only the measured coefficients, z-scored like an extracted box."""
    mask = wedge.mask(volume.shape)
    box = np.fft.irfftn(np.fft.rfftn(volume) * mask, s=volume.shape, axes=(0, 1, 2))
    return ((box - box.mean()) / box.std()).astype(np.float32)


@cache
def boxes(count: int = 60, box: int = 32, wedge: MissingWedge = WEDGE) -> tuple[Volume, Rotation, NDArray[np.float64]]:
    rng = np.random.default_rng(0)
    turns, shifts = random_rotations(count, rng), rng.uniform(-2, 2, (count, 3))
    return np.stack([filtered(render(r, s, box=box), wedge) for r, s in zip(turns, shifts, strict=True)]), turns, shifts


def correlation(a: NDArray[np.floating], b: NDArray[np.floating]) -> float:
    return float(np.corrcoef(a.ravel(), b.ravel())[0, 1])


@pytest.mark.parametrize(
    ("box", "wedge"), [(32, WEDGE), (33, WEDGE), (32, MissingWedge(-40, 40)), (32, MissingWedge(-60, 50, "x"))]
)
def test_the_object_is_recovered_and_the_wedge_filled(box: int, wedge: MissingWedge) -> None:
    stack, turns, shifts = boxes(60, box, wedge)
    found, weight = wedge_weighted_average(stack, turns, shifts, wedge)
    truth = render(box=box)
    assert correlation(found, truth) >= 0.98
    assert correlation(stack[0], render(turns[0], shifts[0], box=box)) < 0.9
    curve = fsc(found, truth, VOXEL)[1]
    assert curve[: box // 4 + 1].min() > 0.99
    assert curve[: box // 2].min() > 0.9
    # the coefficients that one box lacks are there, with the amplitude of the others
    spectrum, known = np.fft.rfftn(found), np.fft.rfftn(truth)
    lacking = ~wedge.mask(truth.shape) & (weight > 0) & (np.abs(known) > 0.05 * np.abs(known).max())
    present = wedge.mask(truth.shape) & (np.abs(known) > 0.05 * np.abs(known).max())
    gain = [np.abs(spectrum[part] / known[part]).mean() for part in (lacking, present)]
    assert lacking.sum() > 20
    assert gain[0] == pytest.approx(gain[1], rel=0.1)


def test_wrong_poses_do_not_recover_it() -> None:
    stack, turns, shifts = boxes()
    truth = render()
    right = correlation(wedge_weighted_average(stack, turns, shifts, WEDGE)[0], truth)
    swapped = Rotation.from_matrix(turns.as_matrix()[:, ::-1, ::-1])  # the same turns in xyz
    wrong = {
        "inverse": (turns.inv(), shifts),
        "axes in the other order": (swapped, shifts),
        "shift of the other sign": (turns, -shifts),
        "shift in the other order": (turns, shifts[:, ::-1]),
        "shift in the reference frame": (turns, turns.inv().apply(shifts)),
        "no shift": (turns, 0 * shifts),
    }
    got = {name: correlation(wedge_weighted_average(stack, *pose, WEDGE)[0], truth) for name, pose in wrong.items()}
    assert all(value < 0.97 < 0.995 < right for value in got.values()), got
    assert got["inverse"] < 0.85
    assert got["axes in the other order"] < 0.85


def test_the_average_keeps_the_hand() -> None:
    found = wedge_weighted_average(*boxes(), WEDGE)[0]
    mirrored = render()[:, :, 1:][:, :, ::-1]
    assert correlation(found, render()) > 0.99
    assert correlation(found[:, :, 1:], mirrored) < 0.9


def test_wedges_are_turned_the_same_way_as_boxes() -> None:
    # poses within a fan leave some coefficients to few boxes: without the weights those come out too low
    rng = np.random.default_rng(2)
    turns = Rotation.from_rotvec(rng.uniform(-60, 60, (40, 1)) * [0, 1, 0], degrees=True)  # about the tilt axis y
    stack = np.stack([filtered(render(r)) for r in turns])
    found, weight = wedge_weighted_average(stack, turns, np.zeros((40, 3)), WEDGE)
    known = np.fft.rfftn(render())
    strong = (np.abs(known) > 0.03 * np.abs(known).max()) & (weight > 0)
    strong[0, 0, 0] = False
    gain = np.abs(np.fft.rfftn(found) / known)
    few, many = strong & (weight < 20), strong & (weight > 35)
    assert few.sum() > 50
    assert gain[few].mean() == pytest.approx(gain[many].mean(), rel=0.1)
    assert correlation(found, render()) > 0.99


def test_an_unturned_average_is_the_mean_of_the_boxes() -> None:
    box = filtered(render())
    stack = np.stack([box, 3 * box])
    found, weight = wedge_weighted_average(stack, Rotation.identity(2), np.zeros((2, 3)), WEDGE)
    sphere = radius_grid(box.shape) < 12
    assert correlation(found[sphere], box[sphere]) > 0.998
    assert np.polyfit(box[sphere], found[sphere], 1)[0] == pytest.approx(2.0, rel=0.02)
    mask = WEDGE.mask(box.shape)
    measured = weight > 0
    assert set(np.unique(weight)) == {0.0, 2.0}
    assert not measured[~mask].any()


def test_weights_count_the_boxes_that_measured_a_coefficient() -> None:
    stack, turns, shifts = boxes()
    weight = fourier_sum(stack, turns, shifts, WEDGE).weight
    inside = weight[:8, :8, 1:8]
    assert inside.mean() == pytest.approx(60 * WEDGE.measured_fraction, rel=0.05)
    assert weight.max() <= 60
    assert weight[16, 16, 16] == 0  # beyond the Nyquist sphere


def test_sums_of_parts_are_the_sum_of_all() -> None:
    stack, turns, shifts = boxes()
    whole = fourier_sum(stack, turns, shifts, WEDGE)
    parts = FourierSum.zero(32)
    for rows in np.array_split(np.random.default_rng(0).permutation(60), 7):
        parts += fourier_sum(stack[rows], turns[rows], shifts[rows], WEDGE)
    assert parts.count == whole.count == 60
    assert (parts.weight == whole.weight).all()
    assert parts.volume() == pytest.approx(whole.volume(), abs=1e-4)


def test_poses_mean_the_same_as_in_rotate_volumes() -> None:
    _, turns, shifts = boxes()
    copies = torch.from_numpy(render(width=2.0))[None].expand(60, -1, -1, -1)
    turned = rotate_volumes(copies, turns, shifts).numpy()
    full = MissingWedge(-90, 90)
    assert correlation(wedge_weighted_average(turned, turns, shifts, full)[0], render(width=2.0)) > 0.99


def test_boxes_without_poses_are_refused() -> None:
    with pytest.raises(InputError, match="none"):
        wedge_weighted_average(np.zeros((0, 8, 8, 8), np.float32), Rotation.identity(0), np.zeros((0, 3)), WEDGE)
    with pytest.raises(InputError, match="2 rotations for 3"):
        wedge_weighted_average(np.zeros((3, 8, 8, 8), np.float32), Rotation.identity(2), np.zeros((3, 3)), WEDGE)


def subtomograms(count: int = 40, noise: float = 0.0, signal: float = 1.0, seed: int = 0) -> Subtomograms:
    """Two classes of the object, one of them mirrored, and three boxes of a rare one; centres off by the residuals."""
    rng = np.random.default_rng(seed)
    stack, turns, shifts = boxes()
    rows = np.arange(count) % 60
    data = signal * stack[rows] + noise * rng.standard_normal((count, 32, 32, 32))
    names = np.where(np.arange(count) % 2, "mirrored", "motif").astype(object)
    data[names == "mirrored", :, :, 1:] = data[names == "mirrored", :, :, 1:][..., ::-1]
    names[:3] = "rare"
    residual = {f"residual_{axis}": shifts[rows, i] * VOXEL for i, axis in enumerate("zyx")}
    particles = Particles.create("ts_1", np.zeros((count, 3)), turns[rows], {"class": names, **residual})
    return Subtomograms(particles, data.astype(np.float16), VOXEL, WEDGE)


def test_classes_are_averaged_apart_and_rare_ones_skipped_with_a_reason() -> None:
    calls: list[tuple[int, int]] = []
    found = average(subtomograms(), progress=lambda done, total: calls.append((done, total)))
    assert [a.name for a in found.averages] == ["mirrored", "motif"]
    motif = found.averages[1]
    assert motif.particles == 18
    assert correlation(motif.volume, render()) > 0.97
    assert correlation(found.averages[0].volume, render()) < 0.9
    assert motif.resolution == pytest.approx(2 * VOXEL, rel=0.1)
    assert motif.poses == "given"
    [skipped] = found.skipped
    assert (skipped.name, skipped.particles) == ("rare", 3)
    assert "fewer than the 8" in skipped.reason
    assert calls[-1] == (37, 37)
    assert json.loads(json.dumps(motif.as_dict()))["class"] == "motif"


def test_halves_are_disjoint_and_together_the_whole() -> None:
    given = subtomograms(60)
    for halves in ("alternate", "random"):
        found = average(given, AverageSettings(halves=halves), rng=np.random.default_rng(3)).averages[1]
        first, second = found.halves
        assert correlation(first, second) < 0.999
        assert correlation((first + second) / 2, found.volume) > 0.99


def test_memory_is_that_of_a_batch_and_the_stack_is_read_in_portions() -> None:
    given = subtomograms(200)
    largest = 0

    class Watched:
        shape, ndim, dtype = given.stack.shape, 4, given.stack.dtype

        def __len__(self) -> int:
            return len(given.stack)

        def __getitem__(self, rows: NDArray[np.int64]) -> NDArray[np.float16]:
            nonlocal largest
            largest = max(largest, len(rows))
            return given.stack[rows]

    average(Subtomograms(given.particles, Watched(), VOXEL, WEDGE))  # type: ignore[arg-type] # stands in for a memory map
    assert 0 < largest <= batch_size(32)


def test_resolution_falls_with_noise_and_pure_noise_is_not_resolved() -> None:
    resolution = [
        next(a for a in average(subtomograms(60, noise=noise)).averages if a.name == "motif").resolution
        for noise in (0.0, 6.0, 20.0)
    ]
    assert resolution[0] < resolution[1] < resolution[2]
    nothing = [
        a.curve[2:12].mean()
        for seed in range(4)
        for a in average(subtomograms(60, noise=1.0, signal=0.0, seed=seed)).averages
    ]
    assert abs(np.mean(nothing)) < 0.1


def test_clusters_are_named_after_their_number_and_outliers_left_out() -> None:
    given = subtomograms(60)
    cluster = np.where(given.particles["class"] == "motif", 3, -1)
    found = average(
        Subtomograms(given.particles.with_columns(cluster=cluster), given.stack, VOXEL, WEDGE), by="cluster"
    )
    assert [a.name for a in found.averages] == ["cluster_3"]
    assert found.skipped[0].name == "cluster_-1"
    with pytest.raises(InputError, match="a table without one"):
        average(given, by="cluster")


def test_boxes_averaged_as_they_lie_say_so() -> None:
    given = subtomograms(60)
    plain = Particles.create("ts_1", np.zeros((60, 3)), columns={"class": ["motif"] * 60})
    [found] = average(Subtomograms(plain, given.stack, VOXEL, WEDGE)).averages
    assert found.poses.startswith("given")
    assert "identity" in found.poses


def test_nothing_to_average_and_a_mask_that_does_not_fit_are_errors() -> None:
    with pytest.raises(InputError, match=r"at least 50 particles to average, got mirrored 19, motif 18, rare 3"):
        average(subtomograms(), AverageSettings(min_particles=50))
    with pytest.raises(InputError, match="at most 130 Å"):
        average(subtomograms(), AverageSettings(mask_radius=150))


def test_simulated_boxes_average_to_the_structure() -> None:
    structure = load_structure("3j9i")
    given = simulate_subtomograms([structure], SubtomogramSettings(count=60, snr=0.1), np.random.default_rng(0))
    [found] = average(given).averages
    known = structure_density(structure, voxel_size=given.voxel_size, resolution=25.0, shape=(32, 32, 32))
    mask = soft_sphere((32, 32, 32), 12.0)
    frequencies, curve = fsc(found.volume, known, given.voxel_size, mask)
    assert resolution_at(frequencies, curve, 0.5) < 30
    assert found.resolution == pytest.approx(resolution_at(frequencies, curve, 0.5), rel=0.25)


@pytest.fixture
def extraction(tmp_path: Path) -> Path:
    """A run folder as an extraction leaves it."""
    given = subtomograms(40)
    folder = tmp_path / "subtomograms"
    folder.mkdir()
    write_volume(tmp_path / "ts_1.mrc", np.random.default_rng(0).random((40, 40, 40), dtype=np.float32), VOXEL)
    tomograms = [open_tomogram(tmp_path / "ts_1.mrc", missing_wedge=WEDGE)]
    with create_stack(folder / "subtomograms.mrcs", len(given), 32, VOXEL) as stack:
        stack[:] = given.stack
    particles = given.particles.with_columns(stack_index=np.arange(len(given)))
    write_tomograms(folder / "tomograms.star", tomograms)
    write_subtomogram_table(
        folder / "particles.star", particles, missing_wedge=WEDGE, voxel_size=VOXEL, tomograms=tomograms
    )
    return folder


def test_the_command_writes_maps_and_their_record(
    extraction: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "averages"
    main(["average", str(extraction), "-o", str(out)])
    entries = {entry["class"]: entry for entry in json.loads((out / "averages.json").read_text())}
    assert sorted(entries) == ["mirrored", "motif"]
    motif = entries["motif"]
    assert (motif["particles"], motif["poses"], motif["file"]) == (18, "given", "motif.mrc")
    assert len(motif["fsc"]["frequency"]) == len(motif["fsc"]["fsc"]) == 17
    volume = open_volume(out / "motif.mrc")
    assert volume.voxel_size == pytest.approx(VOXEL)
    assert correlation(np.asarray(volume.data), render()) > 0.97
    assert all((out / f"motif_half{i}.mrc").exists() for i in (1, 2))
    printed = capsys.readouterr().out
    assert "skipped rare: it has 3 particles" in printed
    assert "Poses: given." in printed


def test_the_command_finds_the_stack_of_the_run_its_classes_came_from(extraction: Path, tmp_path: Path) -> None:
    given = read_subtomograms(extraction)
    few = given.particles.take(np.arange(39, 2, -1))
    with run_folder(tmp_path / "classes", "classify", {}, inputs=[extraction]) as run:
        tomograms = read_tomograms(extraction / "tomograms.star")
        write_tomograms(run / "tomograms.star", tomograms)
        write_particles(run / "particles.star", few, tomograms=tomograms)
    main(["average", str(tmp_path / "classes"), "-o", str(tmp_path / "averages")])
    volume = open_volume(tmp_path / "averages" / "motif.mrc")
    assert correlation(np.asarray(volume.data), render()) > 0.97


def test_the_command_takes_true_poses_and_says_so(
    extraction: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given, rng = read_subtomograms(extraction).particles, np.random.default_rng(5)
    tomograms = read_tomograms(extraction / "tomograms.star")
    centres = np.stack(np.meshgrid(*[[50.0, 150, 250, 350]] * 3, indexing="ij"), axis=-1).reshape(-1, 3)[: len(given)]
    offset = given.columns[["residual_z", "residual_y", "residual_x"]].to_numpy(float)
    truth = Particles.create("ts_1", centres + offset, given.orientation, {"class": given["class"], "radius": 80.0})
    write_tomograms(tmp_path / "tomograms.star", tomograms)
    write_particles(tmp_path / "truth.star", truth.take(rng.permutation(len(truth))), tomograms=tomograms)
    columns = dict(given.columns.assign(residual_z=0.0, residual_y=0.0, residual_x=0.0))
    unposed = Particles.create("ts_1", centres, columns=columns)
    write_particles(extraction / "particles.star", unposed, tomograms=tomograms)
    blind, posed = tmp_path / "blind", tmp_path / "posed"
    main(["average", str(extraction), "-o", str(blind), "--poses", "given"])
    main(["average", str(extraction), "-o", str(posed), "--truth", str(tmp_path / "truth.star")])
    assert correlation(np.asarray(open_volume(blind / "motif.mrc").data), render()) < 0.8
    assert correlation(np.asarray(open_volume(posed / "motif.mrc").data), render()) > 0.97
    notes = [json.loads((folder / "averages.json").read_text())[1]["poses"] for folder in (blind, posed)]
    assert "identity" in notes[0]
    assert "true particles" in notes[1]


def test_a_command_that_cannot_average_says_why_and_leaves_nothing(
    extraction: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for options, expected in ((["--min-particles", "30"], "lower min-particles"), ([], "subtomograms.mrcs")):
        if not options:
            (extraction / "subtomograms.mrcs").unlink()
        with pytest.raises(SystemExit) as stop:
            main(["average", str(extraction), "-o", str(tmp_path / "out"), *options])
        assert stop.value.code == 2
        message = capsys.readouterr().err
        assert message.count("\n") == 1
        assert expected in message
        assert not (tmp_path / "out").exists()
