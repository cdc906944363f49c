"""`tomotif mine` on a tomogram of large and small balls: the whole published line, its stages, what a person says."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml

from tests.test_cli import run
from tomotif.core import Particles
from tomotif.io.files import read_json
from tomotif.io.mrc import read_header, write_volume
from tomotif.io.star import read_particles, read_tomograms
from tomotif.pipelines.mine import STAGES

VOXEL = 20.0
LARGE, SMALL = 110.0, 60.0
QUICK = (
    *("--method", "published", "--pick.dog-sigma", "50", "--codes.patterns", "4"),
    *("--normalise.box-px", "16", "--normalise.radius", "150"),
    *("--autoencoder.epochs", "30", "--autoencoder.batch-size", "16", "--interactions.draws", "49"),
)


def balls(path: Path, seed: int = 0) -> list[tuple[str, np.ndarray]]:
    """Write a dark tomogram with balls of two sizes on a jittered grid; gives their kinds and positions in Å."""
    rng = np.random.default_rng(seed)
    shape = (56, 100, 100)
    volume = np.zeros(shape, np.float32)
    grid = np.stack(np.meshgrid(*[np.arange(14, n - 10, 24) for n in shape], indexing="ij"), -1).reshape(-1, 3)
    kinds = rng.permutation(np.resize(["large", "small"], len(grid)))
    places = grid + rng.uniform(-2, 2, grid.shape)
    axes = np.ogrid[: shape[0], : shape[1], : shape[2]]
    for kind, place in zip(kinds, places, strict=True):
        distance = VOXEL * np.sqrt(sum((axis - x) ** 2 for axis, x in zip(axes, place, strict=True)))
        volume += distance < (LARGE if kind == "large" else SMALL)
    write_volume(path, -(volume + rng.normal(0, 0.3, shape)).astype(np.float32), VOXEL)
    return list(zip(kinds.tolist(), places * VOXEL, strict=True))


def table(folder: Path) -> Particles:
    """Particles of a stage."""
    return read_particles(folder / "particles.star", tomograms=read_tomograms(folder / "tomograms.star"))


@pytest.fixture(scope="module")
def mined(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, list[tuple[str, np.ndarray]]]:
    folder = tmp_path_factory.mktemp("mine")
    truth = balls(folder / "cell.mrc")
    run("mine", folder / "cell.mrc", "-o", folder / "mined", *QUICK)
    return folder / "cell.mrc", folder / "mined", truth


def test_every_stage_leaves_its_nouns(mined: tuple[Path, Path, list[tuple[str, np.ndarray]]]) -> None:
    tomogram, folder, truth = mined
    assert [(folder / stage / "run.json").exists() for stage in STAGES["published"]] == [True] * 5
    placed = table(folder / "normalised")
    where = np.array([place for _, place in truth])
    nearest = np.linalg.norm(where[:, None] - placed.position, axis=2).min(axis=1)
    assert np.median(nearest) < VOXEL and (nearest < 3 * VOXEL).mean() > 0.9
    labels = read_header(folder / "embedding" / "cell" / "labels.mrc")
    assert labels.shape == read_header(tomogram).shape
    members = [
        len(read_particles(path, tomograms=read_tomograms(folder / "embedding" / "tomograms.star")))
        for path in sorted((folder / "embedding" / "members").iterdir())
    ]
    assert len(members) == 4 and sum(members) == len(placed)


def test_patterns_tell_large_from_small_balls(mined: tuple[Path, Path, list[tuple[str, np.ndarray]]]) -> None:
    _, folder, truth = mined
    found = read_particles(
        folder / "patterns" / "particles.star", tomograms=read_tomograms(folder / "picks/tomograms.star")
    )
    where = np.array([place for _, place in truth])
    kind = np.array([kind for kind, _ in truth])[np.linalg.norm(where[:, None] - found.position, axis=2).argmin(axis=0)]
    pattern = found["pattern"].to_numpy(np.int64)
    major = sum(np.unique(kind[pattern == number], return_counts=True)[1].max() for number in np.unique(pattern))
    assert major / len(found) > 0.9


def test_what_a_person_writes_is_taken_up(
    mined: tuple[Path, Path, list[tuple[str, np.ndarray]]], capsys: pytest.CaptureFixture[str]
) -> None:
    tomogram, folder, _ = mined
    text = (folder / "patterns.yaml").read_text()
    try:
        said = yaml.safe_load(text)
        said[1] |= {"group": "filament", "name": "my favourite"}
        (folder / "patterns.yaml").write_text(yaml.safe_dump(said))
        run("mine", tomogram, "-o", folder, *QUICK)
        assert "my favourite" in capsys.readouterr().out
        assert read_json(folder / "patterns.json")[0]["group"] == "filament"
        names = read_json(folder / "embedding" / "cell" / "labels.json")
        assert names["1"] == "my favourite (1)"
        groups = table(folder / "embedding")
        assert set(groups["group"][groups["pattern"].astype(int) == 1]) == {"filament"}
    finally:
        (folder / "patterns.yaml").write_text(text)


def test_other_clusters_do_not_repeat_earlier_stages(
    mined: tuple[Path, Path, list[tuple[str, np.ndarray]]],
) -> None:
    """As the documentation says: what depends on the clusters is removed, and the rest stays. The last on this run."""
    tomogram, folder, _ = mined
    settings = [*QUICK]
    settings[settings.index("--codes.patterns") + 1] = "3"
    before = {stage: (folder / stage / "run.json").read_bytes() for stage in ("picks", "normalised", "autoencoder")}
    run("mine", tomogram, "-o", folder, *settings, code=2)  # nothing that is there is replaced unasked
    said = yaml.safe_load((folder / "patterns.yaml").read_text())
    said[1]["name"] = "my favourite"
    (folder / "patterns.yaml").write_text(decided := yaml.safe_dump(said))
    for name in ("patterns", "embedding"):
        shutil.rmtree(folder / name)
    run("mine", tomogram, "-o", folder, *settings)
    assert (folder / "patterns.before1.yaml").read_text() == decided  # of patterns that are no longer there
    assert "my favourite" not in (folder / "patterns.yaml").read_text()
    (folder / "patterns.yaml").write_text("2: {name: mine}")  # without a number of particles: taken as it is
    run("mine", tomogram, "-o", folder, *settings)
    assert read_json(folder / "patterns.json")[1]["name"] == "mine"
    assert {stage: (folder / stage / "run.json").read_bytes() for stage in before} == before
    assert len(read_json(folder / "patterns.json")) == 3


def test_mining_by_stages_and_with_too_few_candidates(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    balls(tmp_path / "cell.mrc")
    run("mine", tmp_path / "cell.mrc", "-o", tmp_path / "mined", *QUICK, "--until", "picks")
    assert [path.name for path in (tmp_path / "mined").iterdir()] == ["picks"]
    assert "candidates" in capsys.readouterr().out
    write_volume(tmp_path / "noise.mrc", np.random.default_rng(0).normal(size=(40, 40, 40)).astype(np.float32), VOXEL)
    run("mine", tmp_path / "noise.mrc", "-o", tmp_path / "none", "--pick.threshold", "3", code=2)
    assert "at least 20 candidates to mine" in capsys.readouterr().err
    more = ["1000" if one == "4" else one for one in QUICK]  # more patterns than candidates: said before the training
    run("mine", tmp_path / "cell.mrc", "-o", tmp_path / "mined", *more, code=2)
    assert "--codes.patterns, 1000, got" in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "mined" / "autoencoder").exists()
