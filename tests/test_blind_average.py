"""Blind averaging: a structure comes out of boxes of unknown pose, noise is told, a killed run goes on."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from tomotif.cli.app import main
from tomotif.core import InputError, MissingWedge, Particles, Subtomograms
from tomotif.io.mrc import open_tomogram, open_volume, write_volume
from tomotif.io.stack import create_stack, read_subtomograms, write_subtomogram_table
from tomotif.io.star import write_tomograms
from tomotif.io.structure import load_structure
from tomotif.ops.align import Band, Poses, Reference, Search, SearchPlan, moved_back
from tomotif.ops.average import wedge_weighted_average
from tomotif.ops.density import structure_density
from tomotif.ops.fsc import fsc, resolution_at
from tomotif.ops.mask import automatic_mask
from tomotif.tasks.average import Aligned, AlignSettings, align, average
from tomotif.tasks.average.blind import common_start
from tomotif.tasks.average.checks import Checks, check
from tomotif.tasks.average.classes import unconfirmed, with_poses
from tomotif.tasks.average.group import Group
from tomotif.tasks.average.halves import refine_halves
from tomotif.tasks.simulate import SubtomogramSettings, simulate_subtomograms

VOXEL, BOX = 18.0, 24
QUICK = AlignSettings(starts=2, start_resolution=80.0, rotations=1152, rounds=2, max_shift_px=2.0)
Volume = NDArray[np.float32]


@cache
def boxes(name: str, count: int = 60, snr: float = 0.2, seed: int = 0) -> Subtomograms:
    """Boxes of one structure without CTF."""
    settings = SubtomogramSettings(
        count=count, snr=snr, ctf=False, exposure=0.0, voxel_size=VOXEL, box_px=BOX, max_shift_px=1.0, resolution=40.0
    )
    return simulate_subtomograms([load_structure(name)], settings, np.random.default_rng(seed))


def nothing(count: int = 60) -> Subtomograms:
    """Noise inside the wedge."""
    wedge = MissingWedge(-60, 60)
    white = np.fft.rfftn(np.random.default_rng(3).standard_normal((count, BOX, BOX, BOX)), axes=(1, 2, 3))
    stack = np.fft.irfftn(white * wedge.mask((BOX,) * 3), s=(BOX,) * 3, axes=(1, 2, 3))
    stack /= stack.std(axis=(1, 2, 3), keepdims=True)
    return Subtomograms(Particles.create("noise", np.zeros((count, 3))), stack.astype(np.float16), VOXEL, wedge)


@cache
def aligned(name: str) -> Aligned:
    return align(boxes(name), np.arange(60), QUICK, np.random.default_rng(0))


def average_in(given: Subtomograms, poses: Poses) -> Volume:
    return wedge_weighted_average(given.boxes(slice(None)), poses.rotations, poses.shifts_px, given.missing_wedge)[0]


def resolution_against_truth(volume: Volume, name: str) -> float:
    """FSC 0.5 in Å against the known density, after the map was fitted to it."""
    known = structure_density(load_structure(name), voxel_size=VOXEL, resolution=40.0, shape=(BOX,) * 3)
    search = Search.prepare(Reference.of(known), Band.measured(BOX, None, 9.0), SearchPlan(coarse=7.0, fine=9.0))
    found = search(volume[None])
    fitted = moved_back(volume, found.rotations[0], found.shifts_px[0])
    return resolution_at(*fsc(fitted, known, VOXEL, automatic_mask(known)), 0.5)


def test_a_structure_is_recovered_as_finely_as_with_true_poses() -> None:
    given, found = boxes("4v5d"), aligned("4v5d")
    offsets = given.particles.columns[["shift_z", "shift_y", "shift_x"]].to_numpy(np.float64) / VOXEL
    oracle = average_in(given, Poses(given.particles.orientation, offsets, np.ones(60)))
    blind = resolution_against_truth(average_in(given, found.poses), "4v5d")
    assert blind <= 1.25 * resolution_against_truth(oracle, "4v5d")
    assert blind < 60
    assert found.agreement > 0.7


def test_the_halves_are_disjoint_as_large_and_in_one_frame() -> None:
    given, found = boxes("4v5d"), aligned("4v5d")
    assert sorted(found.half) == [1] * 30 + [2] * 30
    halves = []
    for half in (1, 2):
        rows = np.flatnonzero(found.half == half)
        poses = Poses(found.poses.rotations[rows], found.poses.shifts_px[rows], found.poses.score[rows])
        halves.append(average_in(replace(given, stack=given.stack[rows], particles=given.particles.take(rows)), poses))
    assert resolution_at(*fsc(*halves, VOXEL, automatic_mask(halves[0])), 0.143) < 70


def checked(given: Subtomograms) -> Checks:
    rng = np.random.default_rng(1)
    return check(given, np.arange(len(given)), QUICK, rng, lambda what, done, total: None)


def test_noise_is_told_from_a_structure() -> None:
    verdict = checked(nothing())
    assert verdict.is_noise
    assert verdict.margin < 4
    assert "no structure" in verdict.warnings[0]


def test_one_structure_gets_no_warning() -> None:
    real = checked(boxes("4v5d"))
    assert not real.is_noise
    assert real.margin > 10
    assert real.mixture is not None
    assert real.mixture.alike > 0.85
    assert real.warnings == []


def test_two_structures_in_one_group_are_told() -> None:
    parts = [boxes(name, 40, seed=number) for number, name in enumerate(("1oel", "3j9i"))]
    stack = np.concatenate([part.stack for part in parts])
    mixed = Subtomograms(Particles.create("mixed", np.zeros((80, 3))), stack, VOXEL, parts[0].missing_wedge)
    verdict = checked(mixed)
    assert verdict.is_mixture
    assert verdict.mixture is not None
    assert verdict.mixture.share > 0.4
    assert verdict.mixture.alike < 0.7
    assert "two structures" in verdict.warnings[0]


def test_halves_of_noise_agree_no_further_than_the_start_they_share() -> None:
    noise = nothing()
    found = align(noise, np.arange(60), QUICK, np.random.default_rng(0))
    posed = with_poses(noise, [found])
    posed = replace(posed, particles=posed.particles.with_columns(**{"class": ["noise"] * 60}))
    [made] = average(posed).averages
    beyond = made.frequencies > 1 / found.start_resolution + 1 / (BOX * VOXEL)
    assert np.abs(made.curve[beyond][:4]).max() < 0.3
    assert "nothing in this map is confirmed" in unconfirmed(made, found)[0]


def test_a_killed_alignment_goes_on_to_the_same_poses(tmp_path: Path) -> None:
    given, state = boxes("4v5d"), tmp_path / "state.npz"
    group = Group.of(given, np.arange(60), QUICK)
    begun = common_start(group, np.random.default_rng(0), "C1", lambda what, done, total: None, state)
    assert len(list(tmp_path.glob("state_start*.npz"))) == QUICK.starts
    again = common_start(group, np.random.default_rng(0), "C1", lambda what, done, total: None, state)
    np.testing.assert_array_equal(again.start, begun.start)
    begun = refine_halves(group, begun, np.random.default_rng((0, 60)), lambda what, done, total: None)
    begun.save(state)
    told: list[str] = []

    def report(what: str, done: int, total: int) -> None:
        told.append(what)

    resumed = align(given, np.arange(60), QUICK, np.random.default_rng(9), state=state, report=report)
    assert set(told) == {"refining the halves"}
    whole = aligned("4v5d").poses.rotations.as_quat()
    np.testing.assert_allclose(resumed.poses.rotations.as_quat(), whole, atol=1e-5)


def test_too_few_particles_are_refused() -> None:
    with pytest.raises(InputError, match="at least 8 particles to align"):
        align(boxes("4v5d"), np.arange(7), QUICK, np.random.default_rng(0))


def test_the_command_writes_poses_that_give_the_same_map_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = boxes("4v5d")
    folder = tmp_path / "boxes"
    folder.mkdir()
    with create_stack(folder / "subtomograms.mrcs", len(given), BOX, VOXEL) as stack:
        stack[:] = given.stack
    unposed = Particles.create("ts_1", np.full((60, 3), 300.0), columns={"class": ["70S"] * 60})
    write_volume(tmp_path / "ts_1.mrc", np.random.default_rng(0).random((40, 40, 40), dtype=np.float32), VOXEL)
    tomograms = [open_tomogram(tmp_path / "ts_1.mrc", missing_wedge=given.missing_wedge)]
    write_tomograms(folder / "tomograms.star", tomograms)
    write_subtomogram_table(
        folder / "particles.star",
        unposed.with_columns(stack_index=np.arange(60)),
        missing_wedge=given.missing_wedge,
        voxel_size=VOXEL,
        tomograms=tomograms,
    )
    found, again = tmp_path / "found", tmp_path / "again"
    options = [
        "--starts",
        "1",
        "--start-resolution",
        "80",
        "--rotations",
        "1152",
        "--rounds",
        "1",
        "--max-shift-px",
        "2",
    ]
    main(["average", str(folder), "-o", str(found), *options])
    assert "found from the particles alone" in capsys.readouterr().out
    [entry] = json.loads((found / "averages.json").read_text())
    assert entry["checks"]["is_noise"] is False
    assert (found / "70S.png").stat().st_size > 5000
    assert len((found / "fsc.csv").read_text().splitlines()) == 1 + BOX // 2 + 1
    assert not (found / "work").exists()
    table = read_subtomograms(found / "particles.star", stack=folder / "subtomograms.mrcs").particles
    assert set(table["rlnRandomSubset"].astype(int)) == {1, 2}
    main(["average", str(found), "-o", str(again)])
    assert "given" in json.loads((again / "averages.json").read_text())[0]["poses"]
    for name in ("70S.mrc", "70S_half1.mrc"):
        first, second = (np.asarray(open_volume(run / name).data) for run in (found, again))
        assert np.corrcoef(first.ravel(), second.ravel())[0, 1] > 0.9999
