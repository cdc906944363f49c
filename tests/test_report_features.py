"""The report on what networks say and see: confusion, calibration, maps of features, cards of clusters."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.test_report import CATCH, FSC, Reader, decode, in_chromium, section_of
from tomotif.core import InputError, MissingWedge, Particles, Tomogram, Volume
from tomotif.engine.model_folder import Known, ModelCard, last_layer, save_model
from tomotif.io.files import write_json
from tomotif.io.mrc import open_tomogram, write_volume
from tomotif.io.run_folder import RunFolder, run_folder
from tomotif.io.stack import create_stack, write_subtomogram_table
from tomotif.io.star import write_particles, write_tomograms
from tomotif.models import build_model
from tomotif.ops.calibration import expected_calibration_error, softmax
from tomotif.report.blocks import Projection
from tomotif.report.confusion import confusion_of
from tomotif.report.gallery import box_image
from tomotif.report.maps import FEWEST, POINTS, into_drawing, plane, slice_sheet, some_rows, whitened
from tomotif.report.page import write_report
from tomotif.report.palette import Palette
from tomotif.report.runs import Run, read_run
from tomotif.report.truth import matched_classes, true_classes

BOX, VOXEL, EACH, WIDTH = 16, 10.0, 20, 12
CLASSES = np.array(["ball", "shell", "background"], dtype=object)
TRUE = CLASSES[np.repeat([0, 1, 2], EACH)]
RNG = np.random.default_rng(3)
NAMED = np.where(RNG.random(3 * EACH) < 0.7, TRUE, CLASSES[RNG.integers(3, size=3 * EACH)])
PROBABILITY = RNG.uniform(0.35, 1.0, 3 * EACH)
FEATURES = (np.repeat(6 * np.eye(3, WIDTH), EACH, axis=0) + RNG.normal(size=(3 * EACH, WIDTH))).astype(np.float32)
CLUSTER = np.r_[np.ones(18), np.full(20, 2), np.full(20, 3), 0, 0].astype(int)  # 2 are shells but for 2 balls
VERDICTS: list[dict[str, Any]] = [
    {"cluster": 1, "particles": 18, "kind": "known class", "name": "ball", "share": 0.944, "new_share": 0.056,
     "reason": "94% of its particles are named ball", "resolution_A": 33.3},
    {"cluster": 2, "particles": 20, "kind": "new structure", "name": "ball", "share": 0.6, "new_share": 0.85,
     "reason": "85% of its particles are unlike all known classes", "resolution_A": 41.7},
    {"cluster": 3, "particles": 20, "kind": "mixed", "name": "shell", "share": 0.45, "new_share": 0.1,
     "reason": "no class names half of its particles (shell 45%)", "resolution_A": None},
]  # fmt: skip


def write_boxes(run: RunFolder, particles: Particles) -> None:
    """The table of single boxes, as simulation and classification leave it."""
    alone = Tomogram(Volume(np.zeros((1, 1, 1), np.int8), VOXEL), "t", MissingWedge(-60, 60))
    write_particles(run / "particles.star", particles, tomograms=[alone], style="relion3.1")


def boxes_table(**columns: Any) -> Particles:
    return Particles.create(
        "t", np.full((len(TRUE), 3), 80.0), columns={"stack_index": np.arange(len(TRUE)), **columns}
    )


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Simulated boxes of known class, and all that is made from them."""
    root = tmp_path_factory.mktemp("features")
    with run_folder(root / "data", "simulate", {}, seed=1) as run:
        with create_stack(run / "subtomograms.mrcs", len(TRUE), BOX, VOXEL) as stack:
            stack[:] = RNG.normal(size=stack.shape)
        alone = Tomogram(Volume(np.zeros((1, 1, 1), np.int8), VOXEL), "t", MissingWedge(-60, 60))
        write_subtomogram_table(
            run / "particles.star",
            boxes_table(**{"class": TRUE}),
            missing_wedge=MissingWedge(-60, 60),
            voxel_size=VOXEL,
            tomograms=[alone],
            style="relion3.1",
        )
    files = [root / "data" / "particles.star", root / "data" / "subtomograms.mrcs"]
    with run_folder(root / "classes", "classify", {}, inputs=files) as run:
        write_boxes(run, boxes_table(**{"class": NAMED, "probability": PROBABILITY}))
    with run_folder(root / "features", "features", {}, inputs=files) as run:
        write_boxes(run, replace(boxes_table(**{"class": TRUE}), features=FEATURES))
    discover(root / "found", [root / "features" / "particles.star", files[1]])
    train(root / "model")
    return root


def discover(folder: Path, files: list[Path]) -> None:
    """What a discovery leaves beside its features."""
    groups = np.array([f"cluster{n}" if n else "" for n in CLUSTER], dtype=object)
    columns = {
        "class": NAMED, "probability": PROBABILITY, "cluster": CLUSTER, "group": groups,
        "novelty": np.linspace(-1, 3, len(TRUE)), "is_new": (CLUSTER == 2).astype(int),
    }  # fmt: skip
    folder.mkdir()
    with run_folder(folder / "clusters", "discover", {"clusters": 3}, inputs=files, seed=0) as run:
        write_boxes(run, replace(boxes_table(**columns), features=FEATURES))
    with run_folder(folder / "averages", "average", {}, inputs=[folder / "clusters" / "particles.star"]) as run:
        entries = []
        for n in (1, 2):
            write_volume(run / f"cluster{n}.mrc", RNG.normal(size=(BOX,) * 3).astype(np.float32), VOXEL)
            resolution = VERDICTS[n - 1]["resolution_A"]
            poses = "found from the particles alone"
            entries.append(
                {"class": f"cluster{n}", "particles": 18, "resolution_A": resolution, "fsc": FSC, "poses": poses}
            )
        write_json(run / "averages.json", entries)
        run.record(skipped={"cluster3": "fewer than 30 particles"})
    write_json(folder / "verdicts.json", VERDICTS)


def train(folder: Path) -> None:
    """A training run whose network is right about most of the held-out particles, and much too sure."""
    torch.manual_seed(0)
    network = build_model("motif3d", BOX, 3)
    _, last = last_layer(network)
    target = np.repeat([0, 1, 2], 30)
    toward = last.weight.detach().numpy()[target] / np.linalg.norm(last.weight.detach().numpy(), axis=1)[target, None]
    held = (30 * toward + 12 * np.random.default_rng(0).normal(size=toward.shape)).astype(np.float32)
    with run_folder(folder, "train classifier", {"epochs": 1}, seed=0) as run:
        Known(held.copy(), target.copy(), held, target).save(run / "model")
        card = ModelCard(architecture="motif3d", classes=tuple(CLASSES), box_px=BOX, voxel_size=VOXEL, temperature=2.5)
        save_model(run / "model", network, card)


def page_of(tmp_path: Path, *folders: Path) -> str:
    return write_report(folders, tmp_path / "report.html").read_text(encoding="utf-8")


def counts_in(table: list[list[str]]) -> list[list[int]]:
    """Counts of a confusion matrix on a page."""
    return [[int(cell.split()[0]) for cell in row[1:]] for row in table[2:]]


def facts_in(part: str) -> list[tuple[str, str]]:
    return re.findall(r"<dt>([^<]*)</dt><dd>([^<]*)</dd>", part)


def errors_in(part: str) -> list[str]:
    return [text for label, text in facts_in(part) if label == "expected calibration error"]


def test_a_classification_of_simulated_boxes_is_compared_with_their_truth(demo: Path, tmp_path: Path) -> None:
    section = section_of(page_of(tmp_path, demo / "classes"), "Classified particles")
    [table] = Reader(section).tables
    order = ["ball", "shell", "background"]
    assert [row[0] for row in table[2:]] == order == table[1][1:]
    assert counts_in(table) == [[int(((t == TRUE) & (n == NAMED)).sum()) for n in order] for t in order]
    correct = NAMED == TRUE
    assert errors_in(section) == [f"{expected_calibration_error(PROBABILITY, correct):.3f}"]
    assert ("accuracy", f"{correct.mean():.3f}") in facts_in(section)
    assert f"{correct.mean():.1%} of the names are right" in section
    for n in np.histogram(PROBABILITY, bins=15, range=(0, 1))[0]:
        assert n == 0 or re.search(rf"<text[^>]*>{n}</text>", section)


def test_truth_is_not_what_an_earlier_classification_said(demo: Path, tmp_path: Path) -> None:
    with run_folder(tmp_path / "again", "classify", {}, inputs=[demo / "classes" / "particles.star"]) as run:
        write_boxes(run, boxes_table(**{"class": NAMED, "probability": PROBABILITY}))
    truth = true_classes(read_run(tmp_path / "again", "again"))
    assert truth is not None
    assert truth.names.tolist() == TRUE.tolist()


@pytest.mark.parametrize("source", [[], ["elsewhere.star"]])
def test_without_truth_nothing_is_compared(tmp_path: Path, source: list[str]) -> None:
    inputs = [tmp_path / name for name in source]
    for path in inputs:
        path.write_text("")
    with run_folder(tmp_path / "alone", "classify", {}, inputs=inputs) as run:
        write_boxes(run, boxes_table(**{"class": NAMED, "probability": PROBABILITY}))
    page = page_of(tmp_path, tmp_path / "alone")
    assert "Confusion matrix" not in page
    assert "Reliability" not in page


@pytest.fixture(scope="module")
def picked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Picks in a simulated tomogram, named and scored: 6 in place, 2 of them misnamed, and 2 where nothing is."""
    root = tmp_path_factory.mktemp("picked")
    where = np.stack([np.full(6, 100.0), np.full(6, 100.0), 60.0 * np.arange(1, 7)], axis=1)
    with run_folder(root / "sim", "simulate", {}, seed=1) as run:
        write_volume(run / "sim.mrc", RNG.normal(size=(20, 20, 45)).astype(np.float32), VOXEL)
        tomogram = open_tomogram(run / "sim.mrc", missing_wedge=MissingWedge(-60, 60))
        columns = {"class": ["ball"] * 3 + ["shell"] * 3, "radius": 20.0}
        write_tomograms(run / "tomograms.star", [tomogram])
        write_particles(run / "particles.star", Particles.create("sim", where, columns=columns), tomograms=[tomogram])
    found = np.concatenate([where + 4, [[30.0, 30, 30], [160.0, 160, 400]]])
    columns = {
        "class": ["ball", "ball", "shell", "shell", "shell", "background", "ball", "background"],
        "probability": [0.9, 0.9, 0.9, 0.9, 0.5, 0.8, 0.5, 0.7],
    }
    with run_folder(root / "named", "classify", {}) as run:
        write_tomograms(run / "tomograms.star", [tomogram])
        write_particles(run / "particles.star", Particles.create("sim", found, columns=columns), tomograms=[tomogram])
    tables = [root / "named" / "particles.star", root / "sim" / "particles.star"]
    with run_folder(root / "score", "score", {"fraction": 0.5, "radius": None}, inputs=tables) as run:
        write_json(run / "score.json", {"macro_f1": 0.6, "confusion": {}, "classes": []})
    return root


def test_picks_are_compared_with_the_particle_that_they_match(picked: Path, tmp_path: Path) -> None:
    section = section_of(page_of(tmp_path, picked / "named"), "Classified particles")
    [table] = Reader(section).tables
    assert [row[0] for row in table[2:]] == ["ball", "shell", "background"]
    assert counts_in(table) == [[2, 1, 0], [0, 2, 1], [1, 0, 1]]
    # five intervals: 4 of 0.9 with 3 right, 2 of 0.5 with 1 right, one of 0.8 wrong, one of 0.7 right
    error = (4 * abs(0.75 - 0.9) + 2 * abs(0.5 - 0.5) + 0.8 + 0.3) / 8
    assert errors_in(section) == [f"{error:.3f}"]


def test_a_score_shows_the_reliability_and_the_classification_does_not_repeat_it(picked: Path, tmp_path: Path) -> None:
    page = page_of(tmp_path, picked)
    assert "Reliability" not in section_of(page, "Classified particles")
    section = section_of(page, "Scores against the truth")
    error = (4 * abs(0.75 - 0.9) + 2 * abs(0.5 - 0.5)) / 6  # the two called background are set aside
    assert errors_in(section) == [f"{error:.3f}"]
    assert ("answers", "6") in facts_in(section)


def test_a_score_whose_tables_are_gone_says_so(picked: Path, tmp_path: Path) -> None:
    gone = [tmp_path / "gone" / name for name in ("a.star", "b.star")]
    gone[0].parent.mkdir()
    for path in gone:
        path.write_text("")
    with run_folder(tmp_path / "score", "score", {}, inputs=gone) as run:
        write_json(run / "score.json", {"macro_f1": 0.6})
    for path in gone:
        path.unlink()
    section = section_of(page_of(tmp_path, tmp_path / "score"), "Scores against the truth")
    assert re.findall(r'role="note">([^<]*)<', section) == [
        f"{gone[0]}, which score read, was not found; whether its probabilities hold is not shown"
    ]


def test_one_particle_is_matched_by_one_pick() -> None:
    truth = Particles.create("t", [[0, 0, 0]], columns={"class": ["ball"], "radius": [20.0]})
    picks = Particles.create(["t", "t", "u"], [[0, 0, 6], [0, 0, 3], [0, 0, 0]])
    assert matched_classes(picks, truth).tolist() == ["background", "ball", "background"]
    assert matched_classes(picks, truth, fraction=0.1).tolist() == ["background"] * 3
    assert matched_classes(picks, truth, fraction=0.1, radius=40.0).tolist() == ["background", "ball", "background"]


def test_held_out_particles_before_and_after_temperature(demo: Path, tmp_path: Path) -> None:
    section = section_of(page_of(tmp_path, demo / "model"), "Training")
    known = Known.load(demo / "model" / "model")
    torch.manual_seed(0)
    _, last = last_layer(build_model("motif3d", BOX, 3))
    with torch.inference_mode():
        logits = last(torch.from_numpy(known.held)).numpy()
    named, errors = logits.argmax(axis=1), []
    for temperature in (1.0, 2.5):
        probability = softmax(logits, temperature).max(axis=1)
        errors.append(f"{expected_calibration_error(probability, named == known.held_class):.3f}")
    assert errors_in(section) == errors
    assert errors[0] != errors[1]
    assert re.findall(r"<h4>(.*?)</h4>", section)[-2:] == ["Before temperature scaling", "At temperature 2.50"]
    [table] = Reader(section).tables
    counts = np.array([[((known.held_class == t) & (named == n)).sum() for n in range(3)] for t in range(3)])
    assert counts_in(table) == counts.tolist()
    assert 0 < np.trace(counts) < counts.sum() == 90


@pytest.mark.parametrize("lost", ["known.safetensors", "model.safetensors"])
def test_a_model_that_lost_a_file_says_so_in_one_line(demo: Path, tmp_path: Path, lost: str) -> None:
    (tmp_path / "model" / "model").mkdir(parents=True)
    for name in ("run.json", "model/model.json", "model/known.safetensors", "model/model.safetensors"):
        (tmp_path / "model" / name).write_bytes((demo / "model" / name).read_bytes())
    (tmp_path / "model" / "history.csv").write_text("epoch,val_loss\n0,1.0\n")
    (tmp_path / "model" / "model" / lost).unlink()
    section = section_of(page_of(tmp_path, tmp_path / "model"), "Training")
    [note] = re.findall(r'role="note">([^<]*)<', section)
    assert lost.partition(".")[0] in note or "weights" in note
    assert "Reliability" not in section


def test_every_point_of_the_map_is_linked_to_the_slices_of_its_box(demo: Path, tmp_path: Path) -> None:
    section = section_of(page_of(tmp_path, demo / "features"), "Features")
    points = re.findall(r'<circle class="k\d+(?: at)?" [^>]*fill="(#\w+)"[^>]*><title>([^<]*)</title>', section)
    assert len(points) == len(TRUE)
    assert [title for _, title in points] == [f"{name} · particle {i} of t" for i, name in enumerate(TRUE, start=1)]
    palette = Palette.of(CLASSES)
    assert [colour for colour, _ in points] == [palette[name].colour for name in TRUE]
    columns, width, height = map(
        int, re.findall(r'data-columns="(\d+)" data-width="(\d+)" data-height="(\d+)"', section)[0]
    )
    sheet = decode(re.findall(r'<image href="([^"]*)"', section)[0])
    assert sheet.shape == (len(TRUE) // columns * height, columns * width)
    stack = np.fromfile(demo / "data" / "subtomograms.mrcs", "<f2", offset=1024).reshape(-1, BOX, BOX, BOX)
    for i in (0, 1, 25, 59):
        y, x = (i // columns) * height, (i % columns) * width
        np.testing.assert_array_equal(sheet[y : y + height, x : x + width], box_image(stack[i].astype(np.float32)))
    assert f'viewBox="0 0 {width} {height}" role="img"' in section  # without JavaScript the first one is shown
    assert section.count('tabindex="0"') == 1
    assert len(re.findall('tabindex="-1"', section)) == len(TRUE) - 1


def test_a_map_needs_features_and_boxes(demo: Path, tmp_path: Path) -> None:
    with run_folder(tmp_path / "bare", "features", {}) as run:
        write_boxes(run, boxes_table())
    with run_folder(tmp_path / "boxless", "features", {}) as run:
        write_boxes(run, replace(boxes_table(), features=FEATURES))
    for name, told in (("bare", "has no features: the map is not shown"), ("boxless", "subtomograms.mrcs")):
        section = section_of(page_of(tmp_path, tmp_path / name), "Features")
        [note] = re.findall(r'role="note">([^<]*)<', section)
        assert told in note
        assert "<circle" not in section


def test_a_page_tells_how_its_map_was_drawn(demo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with run_folder(tmp_path / "few", "features", {}, inputs=[demo / "data" / "subtomograms.mrcs"]) as run:
        write_boxes(run, replace(boxes_table(), features=FEATURES))
    drawn = write_report([tmp_path / "few"], tmp_path / "umap.html", projection="umap").read_text(encoding="utf-8")
    assert "UMAP (McInnes" in section_of(drawn, "Features") and "<circle" in section_of(drawn, "Features")
    assert "t-SNE (van der Maaten" in section_of(page_of(tmp_path, tmp_path / "few"), "Features")
    monkeypatch.setattr("tomotif.report.page.find_spec", lambda _: None)
    with pytest.raises(InputError, match=r"expected umap-learn.*tomotif\[umap\]"):
        write_report([tmp_path / "few"], tmp_path / "umap.html", projection="umap")


def test_a_sample_of_many_particles_is_shown_and_said(demo: Path, tmp_path: Path) -> None:
    count, rng = 1000, np.random.default_rng(0)
    particles = Particles.create("t", np.full((count, 3), 80.0), columns={"stack_index": np.arange(count) % len(TRUE)})
    features = rng.normal(size=(count, 4)).astype(np.float32)
    with run_folder(tmp_path / "many", "features", {}, inputs=[demo / "data" / "subtomograms.mrcs"]) as run:
        write_boxes(run, replace(particles, features=features))
    page = page_of(tmp_path, tmp_path / "many")
    section = section_of(page, "Features")
    assert section.count("<circle class=") == POINTS
    assert f"{POINTS} of 1,000 particles, drawn at random (seed 0)" in section
    shown = [int(text.replace(",", "")) - 1 for text in re.findall(r"particle ([\d,]+) of t</title>", section)]
    assert shown == some_rows(count).tolist()
    assert len(page) < 5e6
    again = section_of(page_of(tmp_path, tmp_path / "many"), "Features")
    assert again == section


@pytest.mark.parametrize("projection", ["t-sne", "umap"])
def test_the_plane_keeps_neighbours_together(projection: Projection) -> None:
    placed = plane(FEATURES, projection=projection)
    apart = np.linalg.norm(placed[:, None] - placed, axis=2) + np.diag(np.full(len(placed), np.inf))
    assert (TRUE[apart.argmin(axis=1)] == TRUE).mean() > 0.95
    np.testing.assert_array_equal(plane(FEATURES, projection=projection), placed)


@pytest.mark.parametrize(
    "features",
    [np.zeros((FEWEST - 1, 4)), np.eye(9)[:, :1], np.ones((20, 4)), np.full((20, 4), np.nan)],
    ids=["few", "one feature", "all the same", "not finite"],
)
def test_features_that_cannot_be_mapped_are_refused(features: np.ndarray) -> None:
    with pytest.raises(InputError, match="the map is not shown"):
        plane(features)


def test_the_smallest_map_is_drawn_inside_its_frame() -> None:
    placed = into_drawing(plane(np.random.default_rng(0).normal(size=(FEWEST, 3))))
    assert placed.shape == (FEWEST, 2)
    assert (placed >= 0).all()
    assert (placed <= [640, 440]).all()
    assert np.ptp(placed[:, 0]) >= np.ptp(placed[:, 1])


def test_slices_of_large_boxes_are_binned() -> None:
    sheet = slice_sheet(np.random.default_rng(0).normal(size=(3, 90, 90, 90)), np.array([2, 0]))
    assert (sheet.tile_width, sheet.tile_height, sheet.columns) == (30, 61, 2)
    assert decode(sheet.image).shape == (61, 60)


def test_features_are_seen_as_the_clustering_saw_them(demo: Path) -> None:
    wide = RNG.normal(size=(7, Known.load(demo / "model" / "model").learned.shape[1]))
    card = {"path": str(demo / "model" / "model" / "model.json")}
    run = Run(demo / "features", {"inputs": [card]}, "features")
    white, changed = whitened(run, wide)
    assert changed
    assert not np.allclose(white, wide)
    same, changed = whitened(run, FEATURES)  # features of another width, such as logits
    assert not changed
    np.testing.assert_array_equal(same, FEATURES)


def cards_in(page: str) -> dict[str, str]:
    """Cards of clusters by their name."""
    parts = re.findall(r'<article class="average cluster">.*?</article>', page, re.DOTALL)
    return {re.findall(r"</svg><span>([^<]*)</span>", part)[0]: part for part in parts}


def test_cards_repeat_verdicts_averages_and_truth(demo: Path, tmp_path: Path) -> None:
    page = page_of(tmp_path, demo / "found")
    cards = cards_in(section_of(page, "Discovered structures"))
    assert list(cards) == ["cluster 1", "cluster 2", "cluster 3"]
    for (name, card), verdict in zip(cards.items(), VERDICTS, strict=True):
        n = verdict["cluster"]
        assert re.findall(r'class="verdict \w*">([^<]*)<', card) == [verdict["kind"]]
        assert f'<p class="reason">{verdict["reason"]}</p>' in card
        facts = dict(facts_in(card))
        assert facts["particles"] == str(verdict["particles"])
        assert facts["called new"] == f"{verdict['new_share']:.0%}"
        assert facts["most often called"] == f"{verdict['name']}, {verdict['share']:.0%}"
        names, counts = np.unique(TRUE[n == CLUSTER].astype(str), return_counts=True)
        assert facts["purity"] == f"{counts.max() / counts.sum():.0%} {names[counts.argmax()]}", name
        assert ("resolution" in facts) == (n < 3)
        assert card.count("<img") == card.count('<svg class="chart"') == int(n < 3)
    assert dict(facts_in(cards["cluster 2"]))["resolution"] == "41.7 Å"
    assert "No blind average: fewer than 30 particles." in cards["cluster 3"]
    assert dict(facts_in(cards["cluster 1"]))["purity"] == "100% ball"
    assert "1 new structure" in page
    assert "new: cluster 2 (20 particles)" in page


def test_the_map_of_a_discovery_is_coloured_by_cluster(demo: Path, tmp_path: Path) -> None:
    page = page_of(tmp_path, demo / "features", demo / "found")
    assert page.count('<div class="view map"') == 1
    assert "Their map is in the section of the discovery" in section_of(page, "Features")
    section = section_of(page, "Discovered structures")
    titles = re.findall(r"<title>([^<]*)</title></circle>", section)
    assert len(titles) == len(TRUE)
    assert titles[0] == f"cluster 1 · particle 1 of t · called {NAMED[0]} · novelty -1.00"
    assert titles[-1].startswith("other · particle 60 of t")
    legend = re.findall(r"<span>([^<]*)</span><small>(\d+)</small></label>", section)
    assert legend == [("cluster 1", "18"), ("cluster 2", "20"), ("cluster 3", "20"), ("other", "2")]


def test_blind_averages_are_shown_once(demo: Path, tmp_path: Path) -> None:
    together = section_of(page_of(tmp_path, demo / "found"), "Class averages")
    assert "They are shown on the cards of the clusters." in together
    assert "<img" not in together
    alone = section_of(page_of(tmp_path, demo / "found" / "averages"), "Class averages")
    assert alone.count("<img") == 2


@pytest.mark.parametrize(
    ("lost", "told"),
    [
        ("verdicts.json", "verdicts.json"),
        ("averages/run.json", "blind averages"),
        ("averages/cluster1.mrc", "cluster1.mrc"),
    ],
)
def test_a_discovery_that_lost_a_file_says_so(demo: Path, tmp_path: Path, lost: str, told: str) -> None:
    for path in (demo / "found").rglob("*"):
        if (path.is_file() and path.name != Path(lost).name) or path.parent.name == "clusters":
            target = tmp_path / "found" / path.relative_to(demo / "found")
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(path.read_bytes())
    section = section_of(page_of(tmp_path, tmp_path / "found" / "clusters"), "Discovered structures")
    notes = [note for note in re.findall(r'role="note">([^<]*)<', section) if "tomograms.star" not in note]
    assert len(notes) == 1
    assert told in notes[0]
    assert len(cards_in(section)) == 3
    assert ("no verdict" in section) == (lost == "verdicts.json")


@pytest.mark.parametrize("content", ["[]", "{}", "3", '[{"cluster": "one", "kind": 4, "share": "much"}, 7]'])
def test_damaged_verdicts_do_not_stop_the_page(demo: Path, tmp_path: Path, content: str) -> None:
    for path in (demo / "found" / "clusters").iterdir():
        if path.is_file():
            (tmp_path / "clusters").mkdir(exist_ok=True)
            (tmp_path / "clusters" / path.name).write_bytes(path.read_bytes())
    (tmp_path / "verdicts.json").write_text(content)
    assert len(cards_in(page_of(tmp_path, tmp_path / "clusters"))) == 3


def test_clusters_have_colours_of_their_own() -> None:
    with_clusters, without = Palette.of(["ball", "cluster1", "cluster2", "shell"]), Palette.of(["ball", "shell"])
    assert all(with_clusters[name].colour == without[name].colour for name in ("ball", "shell"))
    assert with_clusters["cluster2"].label == "cluster 2"


def test_a_confusion_matrix_of_twenty_classes_is_narrow_and_whole() -> None:
    names = np.array([f"class{i}" for i in range(20)], dtype=object)
    true = np.resize(names, 3 * EACH)
    named = np.where(np.arange(3 * EACH) % 3 == 0, np.roll(true, 1), true)
    matrix = confusion_of(true, named, Palette.of(names))
    assert matrix is not None
    assert matrix.wide
    assert [[cell.count for cell in cells] for *_, cells in matrix.rows] == [
        [int(((true == t) & (named == n)).sum()) for n in names] for t in names
    ]
    few = confusion_of(true[:5], named[:5], Palette.of(names))
    assert few is not None
    assert not few.wide


def test_the_report_is_imported_without_torch() -> None:
    probe = "import sys, tomotif.report.page; print('torch' in sys.modules, 'sklearn' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]


PROBE = """<pre id="probe"></pre><script>
addEventListener("load", () => {
  const map = document.querySelector(".map"), points = [...map.querySelectorAll(".points circle")];
  const state = () => [points.findIndex((it) => it.classList.contains("at")),
    map.querySelector(".tile").getAttribute("viewBox"), map.querySelector("figcaption").textContent];
  const first = state(), told = [];
  const box = points[25].getBoundingClientRect();
  const at = { clientX: box.x + box.width / 2, clientY: box.y + box.height / 2 };
  map.querySelector(".points").dispatchEvent(new PointerEvent("pointermove", { ...at, bubbles: true }));
  told.push(state());
  points[30].focus();
  told.push(state());
  document.activeElement.dispatchEvent(new KeyboardEvent("keydown", { key: "ArrowLeft", bubbles: true }));
  told.push(state());
  document.getElementById("probe").textContent = JSON.stringify({ problems, first, told,
    focused: points.indexOf(document.activeElement), stops: map.querySelectorAll('.points [tabindex="0"]').length,
    x: points.map((it) => it.cx.baseVal.value), overflow: document.documentElement.scrollWidth - innerWidth });
});
</script></body>"""


@pytest.mark.browser
@pytest.mark.parametrize("width", [1280, 520])
def test_points_are_pointed_at_and_walked_through(demo: Path, tmp_path: Path, width: int) -> None:
    page = page_of(tmp_path, demo / "features")
    file = tmp_path / "probed.html"
    file.write_text(page.replace("<head>", CATCH, 1).replace("</body>", PROBE, 1), encoding="utf-8")
    found, _ = in_chromium(file, tmp_path / "profile", width)
    assert found["problems"] == []
    assert found["overflow"] <= 0
    titles = re.findall(r"<title>([^<]*)</title></circle>", page)
    assert found["first"] == [0, f"0 0 {BOX} {2 * BOX + 1}", titles[0]]
    for place, tile, caption in found["told"]:
        x, y = (place % 20) * BOX, (place // 20) * (2 * BOX + 1)
        assert (tile, caption) == (f"{x} {y} {BOX} {2 * BOX + 1}", titles[place])
    assert [place for place, *_ in found["told"][:2]] == [25, 30]
    walked = found["told"][2][0]
    assert found["focused"] == walked != 30
    assert found["x"][walked] < found["x"][30]
    assert found["stops"] == 1
