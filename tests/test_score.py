"""Scoring of particle tables: what counts as what, end to end on constructed cases."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from tomotif.cli.app import main
from tomotif.core import InputError, Particles
from tomotif.io.mrc import open_tomogram, write_volume
from tomotif.io.star import read_tomograms, write_particles, write_tomograms
from tomotif.tasks.score import ScoreSettings, match_particles, score, with_true_poses

SIZE = (1000.0, 3000.0, 3000.0)
Breaker = Callable[[Particles, Particles], tuple[Particles, Particles]]
NAMES = ("apoferritin", "proteasome", "ribosome")


def make_truth(seed: int = 0, tomograms: int = 4, each: int = 60) -> Particles:
    """Particles on a jittered grid: 200 Å apart, radius 80 Å, so that neighbours cannot be confused."""
    rng = np.random.default_rng(seed)
    grid = np.stack(np.meshgrid(*[np.arange(100, s, 200.0) for s in SIZE], indexing="ij"), axis=-1).reshape(-1, 3)
    parts = [
        Particles.create(
            f"ts_{i}",
            grid[rng.choice(len(grid), each, replace=False)] + rng.uniform(-20, 20, (each, 3)),
            Rotation.random(each, rng),
            {"class": rng.choice(NAMES, each), "radius": np.full(each, 80.0)},
        )
        for i in range(tomograms)
    ]
    return Particles.concat(parts)


def extents(truth: Particles) -> dict[str, tuple[float, float, float]]:
    return dict.fromkeys(truth.tomogram, SIZE)


def test_the_truth_scores_one_in_everything() -> None:
    truth = make_truth()
    found = score(truth, truth, extents=extents(truth))
    assert found.detection == {
        "matched": 240,
        "precision": 1.0,
        "recall": 1.0,
        "f1": 1.0,
        "f_beta": 1.0,
        "false_per_true": 0.0,
    }
    assert found.macro_f1 == found.macro_f_beta == 1.0
    assert found.intervals["macro_f1"] == [1.0, 1.0]
    assert found.intervals["unit"] == "tomogram"
    assert np.array(found.confusion["counts"])[:3, :3].trace() == 240
    assert found.random is not None
    assert found.random["recall"] is not None
    assert 0 < found.random["recall"] < 0.1


def test_missed_false_rejected_and_miscalled_picks_are_counted_apart() -> None:
    truth = make_truth(tomograms=1, each=40)
    names = truth["class"].to_numpy(copy=True)
    wrong = np.flatnonzero(names == "ribosome")[:3]
    names[wrong] = "proteasome"
    found_rows = np.setdiff1d(np.arange(40), np.flatnonzero(names == "apoferritin")[:2])
    picks = truth.with_columns(**{"class": names}).take(found_rows)
    extra = Particles.create(
        "ts_0", [[5, 5, 5], [5, 5, 2990], [990, 5, 5]], columns={"class": ["ribosome", "background", "gold"]}
    )
    result = score(Particles.concat([picks, extra]), truth)
    n = {name: int((truth["class"] == name).sum()) for name in NAMES}
    assert result.counts == {"tomograms": 1, "true": 40, "picks": 40, "rejected": 1}
    assert result.detection["matched"] == 38
    assert result.detection["precision"] == pytest.approx(38 / 40)
    assert result.detection["recall"] == pytest.approx(38 / 40)
    assert result.confusion["true"] == [*NAMES, "false"]
    assert result.confusion["predicted"] == ["apoferritin", "gold", "proteasome", "ribosome", "missed"]
    assert result.confusion["counts"] == [
        [n["apoferritin"] - 2, 0, 0, 0, 2],
        [0, 0, n["proteasome"], 0, 0],
        [0, 0, 3, n["ribosome"] - 3, 0],
        [0, 1, 0, 1, 0],
    ]
    f1 = {row["class"]: row["f1"] for row in result.classes}
    expected = {
        "apoferritin": 2 * (n["apoferritin"] - 2) / (2 * n["apoferritin"] - 2),
        "proteasome": 2 * n["proteasome"] / (2 * n["proteasome"] + 3),
        "ribosome": 2 * (n["ribosome"] - 3) / (2 * (n["ribosome"] - 3) + 1 + 3),
    }
    assert {name: f1[name] for name in NAMES} == pytest.approx(expected)
    assert f1["gold"] == 0
    assert result.macro_f1 == pytest.approx(np.mean(list(expected.values())))
    assert result.intervals["unit"] == "particle"
    assert result.random is None


def test_picks_without_classes_get_detection_scores_only() -> None:
    truth = make_truth(tomograms=1)
    picks = Particles.create("ts_0", truth.position[:30])
    result = score(picks, truth, extents=extents(truth))
    assert result.macro_f1 is None
    assert result.detection["recall"] == 0.5
    assert result.confusion["predicted"] == ["unclassified", "missed"]
    assert [row["class"] for row in result.classes] == list(NAMES)
    assert sum(row["found"] * row["true"] for row in result.classes) == pytest.approx(30)
    assert all(row["f1"] is None for row in result.classes)


def test_matching_stays_inside_a_tomogram() -> None:
    truth = make_truth(tomograms=2)
    swapped = np.where(truth.tomogram == "ts_0", "ts_1", "ts_0").astype(object)
    assert score(replace(truth, tomogram=swapped), truth).detection["recall"] < 0.2


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_scores_do_not_depend_on_the_order_of_rows(seed: int) -> None:
    rng = np.random.default_rng(seed)
    truth = make_truth(seed % 1000, tomograms=2, each=25)
    picks = replace(truth, position=truth.position + rng.normal(0, 25, truth.position.shape))
    few = ScoreSettings(bootstrap=20)
    a = score(picks, truth, few)
    b = score(picks.take(rng.permutation(len(picks))), truth.take(rng.permutation(len(truth))), few)
    assert a.as_dict() == b.as_dict()
    assert 0 < a.detection["recall"] < 1


def test_score_is_plain_json_and_the_same_seed_gives_the_same_result() -> None:
    truth = make_truth()
    picks = truth.take(np.arange(0, 240, 2))
    first, second = (score(picks, truth, extents=extents(truth), rng=np.random.default_rng(7)).as_dict() for _ in "ab")
    assert json.loads(json.dumps(first)) == first == second
    assert first["intervals"]["detection"]["recall"][0] <= 0.5 <= first["intervals"]["detection"]["recall"][1]


def test_random_placement_recall_is_the_covered_share_of_the_volume() -> None:
    # one pick per particle hits a particle's 40 Å ball with probability 4/3 pi 40³ / V each
    truth = make_truth(tomograms=4, each=200)
    result = score(truth, truth, ScoreSettings(repeats=50), extents=extents(truth))
    ball = 4 / 3 * np.pi * 40**3 / np.prod(SIZE)
    expected = 1 - (1 - ball) ** 200  # few enough that two picks in one ball hardly matter
    assert result.random is not None
    assert result.random["recall"] == pytest.approx(expected, rel=0.15)


def test_no_picks_score_zero_and_no_truth_is_an_error() -> None:
    truth = make_truth(tomograms=1)
    empty = truth.take([])
    result = score(empty, truth, extents=extents(truth))
    assert result.macro_f1 == result.detection["recall"] == result.detection["precision"] == 0
    with pytest.raises(InputError, match="true particles"):
        score(truth, empty)


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (lambda p, t: (p, replace(t, columns=t.columns.drop(columns="radius"))), "--radius"),
        (lambda p, t: (p, replace(t, columns=t.columns.drop(columns="class"))), "column `class`"),
        (lambda p, t: (replace(p, tomogram=np.full(len(p), "ts_9", dtype=object)), t), "'ts_9'"),
        (lambda p, t: (p.with_columns(**{"class": [None] * len(p)}), t), "60 of 60 rows"),
    ],
)
def test_tables_that_cannot_be_scored_get_one_clear_line(break_it: Breaker, message: str) -> None:
    truth = make_truth(tomograms=1)
    with pytest.raises(InputError, match=message):
        score(*break_it(truth, truth))


def test_radius_setting_replaces_a_missing_column() -> None:
    truth = make_truth(tomograms=1)
    bare = replace(truth, columns=truth.columns.drop(columns="radius"))
    assert score(bare, bare, ScoreSettings(radius=80)).macro_f1 == 1.0


def test_true_poses_move_the_residual_so_that_the_box_stays() -> None:
    truth = make_truth(tomograms=2)
    rng = np.random.default_rng(0)
    shift = rng.uniform(-20, 20, (len(truth), 3))
    order = rng.permutation(len(truth))[:50]
    residual = rng.uniform(-5, 5, (50, 3))
    picks = Particles.create(
        truth.tomogram[order],
        (truth.position + shift)[order],
        columns={f"residual_{axis}": residual[:, i] for i, axis in enumerate("zyx")},
    )
    box_centre = {tuple(p): p - r for p, r in zip(truth.position[order], residual - shift[order], strict=True)}
    posed = with_true_poses(picks, truth)
    assert len(posed) == len(match_particles(picks, truth)) == 50
    for i in range(50):
        row = np.flatnonzero((truth.position == posed.position[i]).all(axis=1))[0]
        assert (posed.orientation[i] * truth.orientation[int(row)].inv()).magnitude() < 1e-6
        left = [posed[f"residual_{axis}"][i] for axis in "zyx"]
        assert posed.position[i] - left == pytest.approx(box_centre[tuple(posed.position[i])])


@pytest.fixture
def run_folders(tmp_path: Path) -> tuple[Path, Path, Particles]:
    """A folder of truth with its tomograms, and one of picks that miss a quarter and call nothing wrongly."""
    truth = make_truth(tomograms=3, each=40)
    tomograms = []
    for name in sorted(set(truth.tomogram)):
        data = np.random.default_rng(1).integers(-9, 9, (25, 75, 75), dtype=np.int8)
        write_volume(tmp_path / f"{name}.mrc", data, 40.0)
        tomograms.append(open_tomogram(tmp_path / f"{name}.mrc"))
    for folder, table in (("truth", truth), ("picks", truth.take(np.arange(120) % 4 > 0))):
        (tmp_path / folder).mkdir()
        write_tomograms(tmp_path / folder / "tomograms.star", tomograms)
        write_particles(tmp_path / folder / "particles.star", table, tomograms=tomograms)
    return tmp_path / "picks", tmp_path / "truth", truth


def test_the_command_writes_the_scores_and_prints_them(
    run_folders: tuple[Path, Path, Particles], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    picks, truth, particles = run_folders
    command = ["score", str(picks / "particles.star"), str(truth), "-o", str(tmp_path / "out"), "--bootstrap", "100"]
    main(command)
    result = json.loads((tmp_path / "out" / "score.json").read_text())
    assert result["detection"]["recall"] == 0.75
    assert result["detection"]["precision"] == 1.0
    expected = score(particles.take(np.arange(120) % 4 > 0), particles)
    assert result["macro_f1"] == pytest.approx(expected.macro_f1)
    assert result["intervals"]["unit"] == "tomogram"
    assert 0 <= result["random"]["recall"] < 0.2
    printed = capsys.readouterr().out
    assert "0.750" in printed
    assert "ribosome" in printed
    record = json.loads((tmp_path / "out" / "run.json").read_text())
    assert record["results"]["recall"] == 0.75
    main(command)  # the second time it only shows what is there
    assert json.loads((tmp_path / "out" / "run.json").read_text()) == record


def test_a_command_that_cannot_score_says_why_and_leaves_nothing(
    run_folders: tuple[Path, Path, Particles], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    picks, truth, particles = run_folders
    bare = replace(particles, columns=particles.columns.drop(columns="class"))
    write_particles(truth / "bare.star", bare, tomograms=read_tomograms(truth / "tomograms.star"))
    with pytest.raises(SystemExit) as stop:
        main(["score", str(picks), str(truth / "bare.star"), "-o", str(tmp_path / "out")])
    assert stop.value.code == 2
    message = capsys.readouterr().err
    assert message.count("\n") == 1
    assert "column `class`" in message
    assert not (tmp_path / "out").exists()
