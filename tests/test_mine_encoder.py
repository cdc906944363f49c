"""`tomotif mine` with the encoder of the package on a simulated tomogram of complexes that it has never seen."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.test_cli import run
from tomotif.core import Particles
from tomotif.io.files import read_json
from tomotif.io.mrc import open_labels, read_header, write_volume
from tomotif.io.stack import open_stack
from tomotif.io.star import read_particles, read_tomograms
from tomotif.io.structure import load_structure
from tomotif.pipelines.mine import STAGES
from tomotif.pipelines.stages import stack_of
from tomotif.tasks.simulate import TomogramSettings, simulate_tomogram

NAMES = ("1oel", "4v5d")
QUICK = (
    *("--pictures.rotations", "576", "--pictures.particles", "30", "--pictures.resolution", "70"),
    *("--interactions.draws", "49", "--tilt-range=-60", "60"),
)


@pytest.fixture(scope="module")
def mined(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Particles]:
    folder = tmp_path_factory.mktemp("mine_encoder")
    settings = TomogramSettings(shape=(64, 160, 160), voxel_size=12.0, counts=(24, 24), snr=0.2)
    made = simulate_tomogram([load_structure(name) for name in NAMES], settings, np.random.default_rng(5), "cell")
    write_volume(folder / "cell.mrc", made.tomogram.volume.data, 12.0)
    run("mine", folder / "cell.mrc", "-o", folder / "mined", *QUICK)
    return folder / "cell.mrc", folder / "mined", made.particles


def table(folder: Path) -> Particles:
    """Particles of a stage."""
    return read_particles(folder / "particles.star", tomograms=read_tomograms(folder / "tomograms.star"))


def test_every_stage_leaves_its_nouns(mined: tuple[Path, Path, Particles]) -> None:
    tomogram, folder, _ = mined
    assert [(folder / stage / "run.json").exists() for stage in STAGES["encoder"]] == [True] * 5
    found = table(folder / "patterns")
    pictures, voxel_size = open_stack(folder / "patterns" / "pictures.mrcs")
    views = np.load(folder / "features" / "views.npy", allow_pickle=False)
    assert (
        len(pictures) == found["pattern"].astype(int).max()
        and pictures.shape[1:] == (32, 32, 32)
        and voxel_size == 12.0
    )
    assert views.shape[:2] == (4, len(found))
    assert stack_of(folder / "patterns") == folder / "boxes" / "subtomograms.mrcs"
    painted = open_labels(folder / "embedding" / "cell" / "labels.mrc").data
    assert painted.shape == read_header(tomogram).shape
    groups = {one["pattern"]: one["group"] for one in read_json(folder / "patterns.json")}
    assert set(np.unique(painted)) - {0} == {number for number, group in groups.items() if group != "noise"}
    assert sum(one["particles"] for one in read_json(folder / "patterns.json")) == len(found)


def test_patterns_are_the_complexes(mined: tuple[Path, Path, Particles]) -> None:
    _, folder, truth = mined
    found = table(folder / "patterns")
    apart = np.linalg.norm(truth.position[:, None] - found.position, axis=2)
    hit = apart.min(axis=0) < 60
    name = truth["class"].to_numpy().astype(str)[apart.argmin(axis=0)]
    pattern = found["pattern"].to_numpy(np.int64)
    pure = {n: max(np.mean(name[hit & (pattern == p)] == n) for p in np.unique(pattern[hit])) for n in NAMES}
    assert hit.sum() >= 35 and min(pure.values()) > 0.9, (hit.sum(), pure)
    assert 2 <= len(np.unique(pattern)) <= 4
    heavy = [p for p in np.unique(pattern) if np.mean(name[hit & (pattern == p)] == "4v5d") > 0.5]
    groups = {one["pattern"]: one["group"] for one in read_json(folder / "patterns.json")}
    assert "large globule" in {groups[p] for p in heavy}


def test_a_rerun_repeats_nothing(mined: tuple[Path, Path, Particles]) -> None:
    tomogram, folder, _ = mined
    before = {stage: (folder / stage / "run.json").stat().st_mtime_ns for stage in STAGES["encoder"]}
    run("mine", tomogram, "-o", folder, *QUICK)
    assert {stage: (folder / stage / "run.json").stat().st_mtime_ns for stage in before} == before


def test_a_stage_of_the_other_method(mined: tuple[Path, Path, Particles], capsys: pytest.CaptureFixture[str]) -> None:
    tomogram, folder, _ = mined
    run("mine", tomogram, "-o", folder, *QUICK, "--until", "autoencoder", code=2)
    assert "with --method encoder" in capsys.readouterr().err


def test_what_pictures_are_seen_through_can_be_changed(mined: tuple[Path, Path, Particles]) -> None:
    tomogram, folder, _ = mined
    painted = []
    for smoothing in ("40", "25"):
        run("mine", tomogram, "-o", folder, *QUICK, "--groups.smoothing", smoothing)
        painted.append(np.array(open_labels(folder / "embedding" / "cell" / "labels.mrc").data) > 0)
    assert painted[0].any() and painted[1].any() and (painted[0] != painted[1]).any()


def test_a_tomogram_thinner_than_a_box_says_what_to_do(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    thin = np.random.default_rng(0).normal(size=(24, 160, 160)).astype(np.float32)
    write_volume(tmp_path / "thin.mrc", thin, 12.0)
    settings = ("--tilt-range=-60", "60", "--pick.threshold", "0.05")
    run("mine", tmp_path / "thin.mrc", "-o", tmp_path / "mined", *settings, code=2)
    told = capsys.readouterr().err
    assert "expected tomograms at least 384 Å thick" in told and "got 288 Å in thin; take --method published" in told
