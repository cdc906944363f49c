"""The report: what it shows is what the run folders hold, and it needs nothing but itself."""

from __future__ import annotations

import base64
import html
import io
import json
import re
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from tomotif.core import InputError, MissingWedge, OutputError, Particles, Tomogram, Volume
from tomotif.io.files import write_json
from tomotif.io.mrc import open_tomogram, write_volume
from tomotif.io.run_folder import run_folder
from tomotif.io.stack import create_stack, write_subtomogram_table
from tomotif.io.star import write_particles, write_tomograms
from tomotif.report.figures import bin_by_mean, central_slices, nice_length, png, stretch
from tomotif.report.gallery import mean_box
from tomotif.report.page import write_report
from tomotif.report.palette import COLOURS, Palette
from tomotif.report.slices import slab_image

NASTY = "<script>alert(1)</script>"
CLASSES = ("20S proteasome", "background", NASTY)
VOXEL, SHAPE = 20.0, (24, 40, 64)
BOX = 8
FSC = {"frequency": [0.005, 0.01, 0.015, 0.02, 0.025], "fsc": [1.0, 0.9, 0.5, 0.1, None]}
SCORE: dict[str, Any] = {
    "counts": {"tomograms": 1, "true": 23, "picks": 20, "rejected": 4},
    "detection": {
        "matched": 17, "precision": 0.85, "recall": 0.7391, "f1": 0.7907, "f_beta": 0.7449, "false_per_true": 0.1304,
    },
    "classes": [
        {"class": "20S proteasome", "true": 13, "predicted": 11, "correct": 9, "found": 0.8462, "precision": 0.8182,
         "recall": 0.6923, "f1": 0.75, "f_beta": 0.6986},
        {"class": NASTY, "true": 10, "predicted": 9, "correct": 5, "found": 0.6, "precision": 0.5556, "recall": 0.5,
         "f1": 0.5263, "f_beta": 0.503},
    ],
    "macro_f1": 0.6382, "macro_f_beta": 0.6008,
    "confusion": {
        "true": ["20S proteasome", NASTY, "false"],
        "predicted": ["20S proteasome", NASTY, "missed"],
        "counts": [[9, 2, 2], [1, 5, 4], [1, 2, 0]],
    },
    "random": {"precision": 0.02, "recall": 0.0174, "f1": 0.0186, "f_beta": 0.0175, "macro_f1": 0.0091, "repeats": 10},
    "intervals": {
        "unit": "particle", "level": 0.95, "resamplings": 1000,
        "detection": {"precision": [0.68, 1.0], "recall": [0.55, 0.91], "f1": [0.63, 0.91], "f_beta": [0.56, 0.9]},
        "macro_f1": [0.43, 0.82], "macro_f_beta": [0.4, 0.78],
        "classes": {"20S proteasome": [0.52, 0.92], NASTY: [0.22, 0.78]},
    },
    "beta": 4.0, "fraction": 0.5,
}  # fmt: skip


def make_tomogram(path: Path, rng: np.random.Generator, count: int) -> tuple[Tomogram, np.ndarray]:
    """A dark-contrast tomogram of unequal edges with globules at known positions zyx in Å."""
    where = np.stack([rng.integers(5, n - 5, count) for n in SHAPE], axis=1)
    grids = np.ogrid[: SHAPE[0], : SHAPE[1], : SHAPE[2]]
    volume = rng.normal(0, 0.1, SHAPE).astype(np.float32)
    for centre in where:
        volume -= np.exp(-sum((g - c) ** 2 for g, c in zip(grids, centre, strict=True)) / 4.0)
    write_volume(path, volume, VOXEL)
    return open_tomogram(path, missing_wedge=MissingWedge(-60, 60)), where * VOXEL


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Run folders of a whole line, as the commands leave them: one simulated chapter, one real."""
    root, rng = tmp_path_factory.mktemp("runs") / "demo", np.random.default_rng(1)
    count = 24
    with run_folder(root / "simulated" / "truth", "simulate", {"snr": 0.1}, seed=7) as run:
        tomogram, where = make_tomogram(run / "sim.mrc", rng, count)
        names = np.array(CLASSES, dtype=object)[np.r_[np.zeros(13, int), np.full(10, 2), 1]]
        truth = Particles.create("sim", where, columns={"class": names, "radius": 60.0})
        write_tomograms(run / "tomograms.star", [tomogram])
        write_particles(run / "particles.star", truth, tomograms=[tomogram])
    add_picks(root / "simulated", tomogram, where, rng)
    boxes = root / "simulated" / "boxes"
    table = {"class": names, "probability": np.linspace(0.99, 0.4, count), "radius": 60.0, "stack_index": range(count)}
    with run_folder(root / "simulated" / "classes", "classify", {"batch_size": 32}, inputs=[boxes]) as run:
        write_tomograms(run / "tomograms.star", [tomogram])
        write_particles(run / "particles.star", Particles.create("sim", where, columns=table), tomograms=[tomogram])
    with run_folder(root / "simulated" / "model", "train", {"epochs": 3}, inputs=[boxes], seed=5) as run:
        rows = ["epoch,val_loss,val_accuracy,train_loss", "0,1.5,0.4,1.7", "1,1.1,0.6,", "2,0.9,0.7,0.8"]
        (run / "history.csv").write_text("\n".join(rows))
        (run / "model").mkdir()
        write_json(run / "model" / "model.json", {"architecture": "motif3d", "classes": list(CLASSES), "box_px": BOX})
    with run_folder(root / "simulated" / "averages", "average", {}, inputs=[root / "simulated" / "classes"]) as run:
        write_volume(run / "20S proteasome.mrc", rng.normal(size=(BOX, BOX, BOX)).astype(np.float32), VOXEL)
        entry = {"class": "20S proteasome", "particles": 13, "resolution_A": 51.25, "fsc": FSC, "poses": "given"}
        write_json(run / "averages.json", [entry, {"class": "gone", "particles": 2, "resolution_A": None, "poses": ""}])
    with run_folder(
        root / "simulated" / "score", "score", {"beta": 4.0}, inputs=[root / "simulated" / "classes"]
    ) as run:
        write_json(run / "score.json", SCORE)
    cell, where = make_tomogram(root.parent / "cell.mrc", rng, count)
    add_picks(root / "real", cell, where, rng)
    cut = root / "real" / "boxes"
    with run_folder(root / "real" / "clusters", "cluster", {"clusters": 4}, inputs=[cut], seed=0) as run:
        group = np.where(np.arange(count) < 6, "ribosome-like", "").astype(object)
        columns = {"cluster": np.repeat([1, 2, 3, 4], 6), "group": group, "stack_index": range(count)}
        write_tomograms(run / "tomograms.star", [cell])
        write_particles(run / "particles.star", Particles.create("cell", where, columns=columns), tomograms=[cell])
    return root


def add_picks(root: Path, tomogram: Tomogram, where: np.ndarray, rng: np.random.Generator) -> None:
    """Picking and extraction of a chapter."""
    count = len(where)
    with run_folder(root / "picks", "pick", {"threshold": 3.0, "radii": [60.0]}) as run:
        columns = {"score": np.linspace(9, 2, count), "radius": 60.0}
        write_tomograms(run / "tomograms.star", [tomogram])
        particles = Particles.create(tomogram.name, where, columns=columns)
        write_particles(run / "particles.star", particles, tomograms=[tomogram])
        run.record(picks=count)
    with run_folder(root / "boxes", "extract", {"box_px": BOX}, inputs=[root / "picks"]) as run:
        with create_stack(run / "subtomograms.mrcs", count, BOX, VOXEL) as stack:
            stack[:] = rng.normal(size=stack.shape)
        columns = {"stack_index": range(count), "padded_fraction": 0.0}
        particles = Particles.create(tomogram.name, where, columns=columns)
        wedge = tomogram.missing_wedge
        table = run / "particles.star"
        write_subtomogram_table(table, particles, missing_wedge=wedge, voxel_size=VOXEL, tomograms=[tomogram])
        write_tomograms(run / "tomograms.star", [tomogram])


@pytest.fixture(scope="module")
def page(demo: Path) -> str:
    """The page of the whole line."""
    return write_report([demo], demo.parent / "report.html", title="Cells & <b>atoms</b>").read_text(encoding="utf-8")


class Reader(HTMLParser):
    """Collects what the tests ask of a page: addresses, images, table cells, tags."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.addresses: list[str] = []
        self.images: list[dict[str, str]] = []
        self.tables: list[list[list[str]]] = []
        self.tags: list[str] = []
        self._cell: list[str] | None = None
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = {key: value or "" for key, value in attrs}
        self.tags.append(tag)
        self.addresses += [found[key] for key in ("src", "href", "action", "srcset", "data") if key in found]
        if tag == "img":
            self.images.append(found)
        if tag == "table":
            self.tables.append([])
        if tag == "tr":
            self.tables[-1].append([])
        if tag in ("td", "th"):
            self._cell = []

    def handle_data(self, data: str) -> None:
        if self._cell is not None and data.strip():
            self._cell.append(data.strip())

    def handle_endtag(self, tag: str) -> None:
        if tag in ("td", "th") and self._cell is not None:
            self.tables[-1][-1].append(" ".join(self._cell))
            self._cell = None


def decode(address: str) -> np.ndarray:
    """Pixels of a ``data:`` PNG."""
    assert address.startswith("data:image/png;base64,")
    image = Image.open(io.BytesIO(base64.b64decode(address.partition(",")[2])))
    assert image.format == "PNG"
    return np.asarray(image)


def section_of(page: str, title: str) -> str:
    """The text of one section."""
    return next(part for part in page.split("<section")[1:] if f">{title}</h2>" in part)


def test_the_page_asks_nothing_of_the_outside(page: str) -> None:
    read = Reader(page)
    assert not re.search(r"https?:|//cdn|@import", page)
    assert all(address.startswith(("data:", "#")) for address in read.addresses)
    assert set(re.findall(r"url\(([^)]{0,12})", page)) <= set(re.findall(r"url\((#[^)]{0,11})", page))
    assert "<link" not in page.replace('<link rel="icon" href="data:,">', "")
    assert len(page) < 8e6


def test_every_image_is_a_picture_with_a_description(page: str) -> None:
    images = Reader(page).images
    slices = 2 + 2 + 2 + 4 + 4 + 2  # truth, picks twice, classes, clusters, the page's head
    members = (1 + 10) + (1 + 10) + (1 + 1)  # three classes of 13, 10 and 1 with their means
    clusters = (1 + 6) + 4 * (1 + 5)  # the group of 6, four clusters of 6
    assert len(images) == slices + members + clusters + 1  # and one average
    for image in images:
        pixels = decode(image["src"])
        assert pixels.dtype == np.uint8
        assert pixels.std() > 10
        assert len(image["alt"]) > 20
    assert page.count('<svg class="chart" role="img" aria-label="') == 5  # scores twice, loss, accuracy, one FSC


def test_names_from_files_are_escaped(page: str) -> None:
    assert NASTY not in page
    assert "<script>alert" not in page
    assert html.escape(NASTY) in page
    assert Reader(page).tags.count("script") == 1
    assert "<h1>Cells &amp; &lt;b&gt;atoms&lt;/b&gt;</h1>" in page


def test_score_tables_repeat_the_file(page: str) -> None:
    detection, classes, confusion = Reader(section_of(page, "Scores against the truth")).tables
    assert detection[1] == ["picks", "23", "20", "17", "0.850 0.68–1.00", "0.739 0.55–0.91", "0.791 0.63–0.91",
                            "0.745 0.56–0.90", "0.130"]  # fmt: skip
    assert detection[2][4:8] == ["0.020", "0.017", "0.019", "0.018"]
    assert classes[1] == ["20S proteasome", "13", "11", "9", "0.846", "0.818", "0.692", "0.750 0.52–0.92", "0.699"]
    assert classes[2] == [NASTY, "10", "9", "5", "0.600", "0.556", "0.500", "0.526 0.22–0.78", "0.503"]
    assert classes[3][-2:] == ["0.638 0.43–0.82", "0.601 0.40–0.78"]
    assert classes[4][-2:] == ["0.009", ""]
    counts = [[int(cell.split()[0]) for cell in row[1:]] for row in confusion[2:]]
    fractions = [[float(cell.split()[1]) for cell in row[1:]] for row in confusion[2:]]
    expected = np.array(SCORE["confusion"]["counts"])
    assert counts == expected.tolist()
    np.testing.assert_allclose(fractions, expected / expected.sum(axis=1, keepdims=True), atol=0.005)


def test_an_average_with_a_warning_shows_it_and_is_not_praised(demo: Path, tmp_path: Path) -> None:
    folder = copy_of(demo, tmp_path, "simulated", "averages")
    [entry, _] = json.loads((folder / "averages.json").read_text())
    write_json(folder / "averages.json", [{**entry, "warnings": ["this map is no structure"]}])
    shown = write_report([folder], tmp_path / "warned.html").read_text(encoding="utf-8")
    averages = section_of(shown, "Class averages")
    assert '<p class="note">this map is no structure</p>' in averages
    assert "No class average can be trusted: 1 of 1 came with a warning." in shown
    assert "finest class average" not in shown


def test_other_numbers_repeat_the_files(page: str) -> None:
    averages = section_of(page, "Class averages")
    assert "<dd>51.2 Å</dd>" in averages
    assert "<dd>13</dd>" in averages
    assert "<dd>given</dd>" in averages
    assert "gone.mrc" in averages  # the average whose map is missing is named in a note
    assert re.findall(r"<code>demo/[\w/]+</code><span>(\w+) · seed (\d)", page) == [
        ("simulate", "7"), ("train", "5"), ("cluster", "0"),
    ]  # fmt: skip
    assert '<th scope="row">threshold</th><td>3</td>' in page
    assert "macro F1 of 0.64 (interval 0.43–0.82)" in page
    assert "24 subtomograms fell into 4 clusters, of which 6 are ribosome-like" in page


def test_runs_that_belong_together_are_a_chapter_in_order_of_time(page: str) -> None:
    assert re.findall(r'chapter-title">([^<]+)<', page) == ["sim (simulated)", "cell"]
    titles = re.findall(r'-title">([^<]+)</h2>', page)
    assert titles == [
        "Simulated tomograms", "Picked particles", "Extracted subtomograms", "Classified particles", "Training",
        "Class averages", "Scores against the truth", "Picked particles", "Extracted subtomograms", "Clusters",
        "Timing", "How it was made",
    ]  # fmt: skip


def test_rings_lie_on_the_particles(demo: Path, page: str) -> None:
    """An axis that is flipped, swapped or off would put rings beside the globules, which are dark in the file."""
    figures = re.findall(r'<figure class="slice">.*?</figure>', section_of(page, "Picked particles"), re.DOTALL)
    assert len(figures) == 2
    for figure in figures:
        pixels = decode(Reader(figure).images[0]["src"])
        assert pixels.shape == SHAPE[1:]
        rings = np.array(re.findall(r'cx="([\d.]+)" cy="([\d.]+)" r="([\d.]+)"', figure), float)
        rings = rings[rings[:, 2] > 2.5]  # cut near the particle's middle; its radius is 3 voxels
        assert len(rings) > 2
        inside = pixels[rings[:, 1].astype(int), rings[:, 0].astype(int)]
        assert inside.mean() > np.percentile(pixels, 95)


def test_scale_bar_has_its_length(page: str) -> None:
    # the tomogram is 128 nm wide, so the bar is 20 nm: 10 of 64 voxels
    assert re.findall(r'class="bar" style="width: ([\d.]+)%"><i>([^<]+)<', page)[0] == ("15.625", "20 nm")


def test_a_class_has_one_colour_everywhere(page: str) -> None:
    pattern = r'<circle cx="7"[^>]*stroke="(#\w{6})"[^>]*/></svg><span>([^<]+)</span>'
    colours: dict[str, set[str]] = {}
    for colour, name in re.findall(pattern, page):
        colours.setdefault(name, set()).add(colour)
    assert {"20S proteasome", html.escape(NASTY), "ribosome-like", "cluster 4"} <= set(colours)
    assert all(len(found) == 1 for found in colours.values())
    assert (
        len({colour for name in ("20S proteasome", html.escape(NASTY), "ribosome-like") for colour in colours[name]})
        == 3
    )


def test_the_proposed_group_is_called_a_proposal(page: str) -> None:
    assert "no template and no label decided it" in section_of(page, "Clusters")


def copy_of(demo: Path, tmp_path: Path, *below: str) -> Path:
    """One run folder for a test to damage."""
    target = tmp_path / below[-1]
    target.mkdir()
    for file in demo.joinpath(*below).iterdir():
        if file.is_file():
            (target / file.name).write_bytes(file.read_bytes())
    return target


@pytest.mark.parametrize(
    ("run", "lost", "told"),
    [
        ("classes", "tomograms.star", "tomograms.star"),
        ("classes", "particles.star", "no particles.star in classes"),
        ("score", "score.json", "score.json"),
        ("averages", "averages.json", "averages.json"),
        ("averages", "20S proteasome.mrc", "20S proteasome.mrc"),
        ("boxes", "subtomograms.mrcs", "subtomograms.mrcs"),
        ("model", "history.csv", "no history.csv in model"),
    ],
)
def test_a_missing_file_is_told_on_the_page(demo: Path, tmp_path: Path, run: str, lost: str, told: str) -> None:
    folder = copy_of(demo, tmp_path, "simulated", run)
    before = write_report([folder], tmp_path / "before.html").read_text(encoding="utf-8")
    (folder / lost).unlink()
    after = write_report([folder], tmp_path / "after.html").read_text(encoding="utf-8")
    notes = [re.findall(r'role="note">([^<]*)<', text) for text in (before, after)]
    assert any(told in note for note in set(notes[1]) - set(notes[0]))


@pytest.mark.parametrize("file", ["score.json", "averages.json"])
@pytest.mark.parametrize("content", ["{", "[]", "{}", "null", '{"classes": 3, "confusion": {"counts": [[1, 2], [3]]}}'])
def test_damaged_json_does_not_stop_the_page(demo: Path, tmp_path: Path, file: str, content: str) -> None:
    folder = copy_of(demo, tmp_path, "simulated", {"score.json": "score", "averages.json": "averages"}[file])
    (folder / file).write_text(content)
    assert "</html>" in write_report([folder], tmp_path / "report.html").read_text(encoding="utf-8")


def test_scores_of_picks_without_classes(demo: Path, tmp_path: Path) -> None:
    folder = copy_of(demo, tmp_path, "simulated", "score")
    none = dict.fromkeys(("predicted", "correct", "precision", "recall", "f1", "f_beta"))
    classes = [{"class": "20S proteasome", "true": 13, "found": 0.8462, **none}]
    confusion = {
        "true": ["20S proteasome", "false"],
        "predicted": ["unclassified", "missed"],
        "counts": [[11, 2], [3, 0]],
    }
    intervals = {**SCORE["intervals"], "macro_f1": None, "macro_f_beta": None, "classes": None}
    plain = {"classes": classes, "macro_f1": None, "macro_f_beta": None, "confusion": confusion, "intervals": intervals}
    write_json(folder / "score.json", {**SCORE, **plain, "random": None})
    tables = Reader(write_report([folder], tmp_path / "r.html").read_text(encoding="utf-8")).tables
    assert tables[0][1][:4] == ["picks", "23", "20", "17"]
    assert tables[1] == [["", "true", "found"], ["20S proteasome", "13", "0.846"]]
    assert tables[2][2] == ["20S proteasome", "11 0.85", "2 0.15"]


def test_an_empty_table_still_shows_the_tomogram(demo: Path, tmp_path: Path) -> None:
    folder = copy_of(demo, tmp_path, "simulated", "picks")
    tomogram = open_tomogram(demo / "simulated" / "truth" / "sim.mrc")
    write_tomograms(folder / "tomograms.star", [tomogram])
    nothing = Particles.create("sim", np.empty((0, 3)), columns={"score": np.empty(0)})
    write_particles(folder / "particles.star", nothing, tomograms=[tomogram])
    text = write_report([folder], tmp_path / "r.html").read_text(encoding="utf-8")
    assert "0 candidate particles were picked" in text
    assert len(Reader(text).images) == 4 + 1
    assert "<circle" not in text


def test_words_where_numbers_belong_do_not_stop_the_page(demo: Path, tmp_path: Path) -> None:
    folder = copy_of(demo, tmp_path, "simulated", "model")
    (folder / "history.csv").write_text("epoch,val_loss\n0,low\n")
    text = write_report([folder], tmp_path / "r.html").read_text(encoding="utf-8")
    assert "expected numbers in" in text


@pytest.mark.parametrize(
    ("last", "told"),
    [
        (0.1, "The finest class average is that of 20S proteasome, at 51 Å (poses given)."),
        (0.2, "all that the voxels allow"),
    ],
)
def test_resolution_that_the_voxels_limit_is_called_so(demo: Path, tmp_path: Path, last: float, told: str) -> None:
    folder = copy_of(demo, tmp_path, "simulated", "averages")
    curve = {"frequency": [0.0, 0.0125, 0.025], "fsc": [1.0, 0.9, last]}
    entry = {"class": "20S proteasome", "particles": 13, "resolution_A": 51.25, "fsc": curve, "poses": "given"}
    write_json(folder / "averages.json", [entry])
    text = write_report([folder], tmp_path / "r.html").read_text(encoding="utf-8")
    assert told in text
    assert ("allow" in text) == (last > 0.143)


def test_a_killed_run_says_so(demo: Path, tmp_path: Path) -> None:
    folder = copy_of(demo, tmp_path, "simulated", "score")
    write_json(folder / "run.json", {"command": "score", "status": "running", "settings": {}})
    assert "This run has not ended" in write_report([folder], tmp_path / "r.html").read_text(encoding="utf-8")


def test_unknown_commands_show_what_they_recorded(tmp_path: Path) -> None:
    with run_folder(tmp_path / "x", "segment", {"window_px": 64}) as run:
        run.record(iou=0.5)
    text = write_report([tmp_path / "x"], tmp_path / "r.html").read_text(encoding="utf-8")
    assert '<h2 id="s1-title">Segment</h2>' in text
    assert '<th scope="row">iou</th><td>0.5</td>' in text


def test_folders_given_twice_are_shown_once(demo: Path, tmp_path: Path) -> None:
    both = [demo / "simulated" / "score", demo / "simulated" / "score" / ".."]
    text = write_report(both, tmp_path / "r.html").read_text(encoding="utf-8")
    assert text.count(">Scores against the truth</h2>") == 1


def test_a_folder_without_a_run_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    output = tmp_path / "report.html"
    for folders, message in (
        ([tmp_path / "empty"], "run.json"),
        ([tmp_path / "missing"], "found nothing"),
        ([], "at least one run folder"),
    ):
        with pytest.raises(InputError, match=message):
            write_report(folders, output)
    assert not output.exists()


def test_an_output_that_cannot_be_written_is_refused(demo: Path) -> None:
    for output in (demo, demo / "missing" / "report.html"):
        with pytest.raises(OutputError, match="expected a"):
            write_report([demo / "simulated" / "score"], output)


class Watched(np.ndarray):
    """An array that remembers how many values were asked of it."""

    asked = 0

    def __getitem__(self, key: Any) -> Any:
        found = super().__getitem__(key)
        Watched.asked += np.size(found)
        return np.asarray(found)


def test_only_the_slices_shown_are_read() -> None:
    data = np.random.default_rng(0).normal(size=(100, 30, 50)).astype(np.float32).view(Watched)
    Watched.asked = 0
    image, factor = slab_image(Tomogram(Volume(data, 10.0), "t"), 500.0)
    assert image.shape == (30, 50)
    assert factor == 1
    assert Watched.asked == 6 * 30 * 50  # 60 Å


def test_large_tomograms_are_binned() -> None:
    image, factor = slab_image(Tomogram(Volume(np.zeros((3, 700, 1300), np.int8), 10.0), "t"), 0.0)
    assert factor == 3
    assert image.shape == (233, 433)


def test_mean_box_is_the_mean_in_any_order() -> None:
    rng = np.random.default_rng(0)
    stack, rows = rng.normal(size=(600, 4, 4, 4)).astype(np.float16), rng.permutation(600)[:500]
    np.testing.assert_allclose(mean_box(stack, rows), stack[rows].astype(float).mean(axis=0), atol=1e-6)


def test_central_slices_pass_through_the_centre() -> None:
    volume = np.zeros((8, 8, 8), np.float32)
    volume[4, 2, 6] = 1  # z, y, x
    xy, xz, yz = central_slices(volume, planes=("xy", "xz", "yz"))
    assert xy[2, 6] == 1
    assert xz.max() == 0
    assert yz.max() == 0
    volume[3, 4, 6] = 2
    assert central_slices(volume, planes=("xz",))[0][3, 6] == 2


@given(st.floats(1e-3, 1e6))
def test_nice_lengths_are_not_longer_and_not_much_shorter(length: float) -> None:
    nice = nice_length(length)
    assert length / 2.5 < nice * (1 + 1e-6)
    assert nice <= length * (1 + 1e-6)
    assert f"{nice:e}"[0] in "125"


@given(st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=50))
def test_stretch_keeps_the_order(values: list[float]) -> None:
    image = np.array(values)
    grey = stretch(image, 0, 100).astype(int)
    assert np.all(np.diff(grey[np.argsort(image, kind="stable")]) >= 0)
    assert np.ptp(image) < 1e-9 or (grey.min(), grey.max()) == (0, 255)


@given(st.integers(1, 5), st.integers(5, 30), st.integers(5, 30))
def test_binning_keeps_the_mean(factor: int, height: int, width: int) -> None:
    image = np.random.default_rng(0).normal(size=(height, width))
    kept = image[: height // factor * factor, : width // factor * factor]
    assert bin_by_mean(image, factor).mean() == pytest.approx(kept.mean())


def test_png_keeps_the_pixels() -> None:
    image = np.arange(12, dtype=np.uint8).reshape(3, 4)
    np.testing.assert_array_equal(decode(png(image)), image)


@given(st.sets(st.text(min_size=1, max_size=5), min_size=1, max_size=21))
def test_names_look_different(names: set[str]) -> None:
    styles = Palette.of(names).styles.values()
    coloured = [(s.colour, s.dash) for s in styles if s.colour in COLOURS]
    assert len(coloured) == len(set(coloured))


PROBE = """<pre id="probe"></pre><script>
addEventListener("load", () => {
  const box = document.querySelector(".view .legend input"), key = box.className.replace("f", "k");
  const ring = box.closest(".view").querySelector(".rings ." + key);
  const shown = getComputedStyle(ring).display;
  box.click();
  const hidden = getComputedStyle(ring).display;
  document.querySelector(".slice button").click();
  const zoomed = document.querySelector(".zoomed .frame").getBoundingClientRect();
  document.dispatchEvent(new KeyboardEvent("keydown", { key: "Escape" }));
  document.getElementById("probe").textContent = JSON.stringify({
    problems, shown, hidden, zoomed: [zoomed.width, zoomed.height],
    zoomed_after: document.querySelectorAll(".zoomed").length,
    widths: [...document.images].map((image) => image.naturalWidth),
    charts: [...document.querySelectorAll("svg.chart")].map((svg) => svg.getBoundingClientRect().height),
    requests: performance.getEntriesByType("resource").map((entry) => entry.name.slice(0, 30)),
    overflow: document.documentElement.scrollWidth - innerWidth,
  });
});
</script></body>"""
CATCH = """<head><script>
const problems = [], told = console.error;
addEventListener("error", (event) => problems.push(String(event.message || event.target.outerHTML.slice(0, 80))), true);
addEventListener("unhandledrejection", (event) => problems.push(String(event.reason)));
console.error = (...words) => { problems.push(words.join(" ")); told(...words); };
</script>"""


def in_chromium(file: Path, profile: Path, width: int) -> tuple[dict[str, Any], str]:
    """What the probe found in a page, and what the browser logged."""
    options = [
        "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-component-update",
        "--disable-background-networking", "--disable-sync", "--disable-dev-shm-usage", "--enable-logging=stderr",
        "--v=0", f"--user-data-dir={profile}", f"--window-size={width},900", "--dump-dom",
    ]  # fmt: skip
    done = subprocess.run(
        ["chromium", *options, file.as_uri()], capture_output=True, text=True, timeout=120, check=True
    )
    found = re.search(r'<pre id="probe">(.+?)</pre>', done.stdout, re.DOTALL)
    assert found, done.stderr
    return json.loads(html.unescape(found[1])), done.stderr


@pytest.mark.browser
@pytest.mark.parametrize("width", [1280, 520])
def test_the_page_renders_in_a_browser(page: str, tmp_path: Path, width: int) -> None:
    file = tmp_path / "probed.html"
    file.write_text(page.replace("<head>", CATCH, 1).replace("</body>", PROBE, 1), encoding="utf-8")
    found, log = in_chromium(file, tmp_path / "profile", width)
    assert found["problems"] == []
    assert "CONSOLE" not in log
    assert len(found["widths"]) == len(Reader(page).images)
    assert min(found["widths"]) > 0
    assert len(found["charts"]) == 5
    assert min(found["charts"]) > 80
    assert all(name.startswith("data:") for name in found["requests"])
    assert found["overflow"] <= 0
    assert (found["shown"], found["hidden"]) == ("inline", "none")
    assert found["zoomed"][0] / found["zoomed"][1] == pytest.approx(SHAPE[2] / SHAPE[1], rel=0.01)
    assert found["zoomed_after"] == 0
