"""The report on what mining leaves: patterns, their groups, paint over slices, who neighbours whom, the autoencoder."""

from __future__ import annotations

import csv
import html
import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from tests.test_report import CATCH, NASTY, Reader, Watched, decode, in_chromium, section_of
from tomotif.core import Labels, MissingWedge, Particles, Tomogram, Volume
from tomotif.io.files import write_json
from tomotif.io.mrc import open_tomogram, write_labels, write_volume
from tomotif.io.run_folder import run_folder
from tomotif.io.stack import create_stack
from tomotif.io.star import write_particles, write_tomograms
from tomotif.report.embedding import CROSSED, ROWS, Pair, areas_at, crossed, outline, painted_view, pair_table
from tomotif.report.figures import central_slices, side_by_side, stretch
from tomotif.report.page import write_report
from tomotif.report.palette import Palette
from tomotif.report.patterns import DOTS, Pattern, footprint, pattern_styles, read_patterns
from tomotif.report.runs import read_run

VOXEL, SHAPE, BOX = 20.0, (24, 40, 64), 8
NUMBER = np.repeat([1, 2, 3, 4], [12, 9, 6, 3])
PATTERNS: list[dict[str, Any]] = [
    {"pattern": 1, "group": "small globule", "proposed": "small globule", "name": "", "particles": 12,
     "evidence": "a globule of 54 Å radius", "near_border": 0.25, "agreement": 0.976},
    {"pattern": 2, "group": "filament", "proposed": "large globule", "name": NASTY, "particles": 9,
     "evidence": "a globule of 100 Å radius", "near_border": None, "agreement": None},
    {"pattern": 3, "group": "noise", "proposed": "noise", "name": "", "particles": 6,
     "evidence": "nothing rises clearly above the background", "near_border": 0.0, "agreement": 0.1},
    {"pattern": 4, "group": "small globule", "proposed": "small globule", "name": "$a$b", "particles": 3,
     "evidence": "a globule of 60 Å radius", "near_border": 0.0, "agreement": 0.8},
]  # fmt: skip
COLUMNS = ("pattern", "neighbour", "placed", "count", "median_distance", "null_distance", "contact", "in_contact",
           "null_in_contact", "enrichment", "p_value", "q_value")  # fmt: skip
PAIRS = [
    (1, 1, 1, 12, 300.0, 310.0, 250.0, 0.0, 0.0, 1.0, 1.0, 1.0),
    (1, 2, 1, 12, 180.0, 400.0, 250.0, 0.75, 0.125, 4.75, 0.001, 0.004),
    (2, 1, 1, 9, 200.0, 350.0, 250.0, 1 / 3, 0.2, 1.52, 0.03, 0.06),
    (2, 4, 4, 9, 900.0, 350.0, 250.0, 0.0, 0.25, 0.18, 0.002, 0.004),
]
CARD = {
    "architecture": "autoencoder3d", "box_px": BOX, "voxel_size": VOXEL, "codes": 32,
    "scores": {"val_error": 0.327498, "live_codes": 14.0, "picture_variation": 0.497},
    "training": {"particles": 26, "validation_particles": 4, "epochs_run": 3.0},
}  # fmt: skip


@pytest.fixture(scope="module")
def mined(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the stages of mining leave, by whatever method, and a training curve."""
    root, rng = tmp_path_factory.mktemp("mined") / "mined", np.random.default_rng(2)
    root.mkdir()
    volume = rng.normal(size=SHAPE).astype(np.float32)
    for name in ("one", "two"):
        write_volume(root / f"{name}.mrc", volume, VOXEL)
    tomograms = [open_tomogram(root / f"{name}.mrc", missing_wedge=MissingWedge(-60, 60)) for name in ("one", "two")]
    where = rng.uniform(4, np.array(SHAPE) - 4, (len(NUMBER), 3)) * VOXEL
    found = Particles.create(np.where(np.arange(len(NUMBER)) % 3, "one", "two"), where)
    with run_folder(root / "picks", "pick", {}) as run:
        write_tomograms(run / "tomograms.star", tomograms)
        write_particles(run / "particles.star", found, tomograms=tomograms)
    with run_folder(root / "autoencoder", "autoencode", {}, inputs=[root / "picks" / "particles.star"], seed=3) as run:
        (run / "history.csv").write_text("epoch,val_loss,train_loss\n0,1.5,1.7\n1,1.1,1.2\n2,0.9,0.8\n")
        (run / "model").mkdir()
        write_json(run / "model" / "model.json", CARD)
    found = found.with_columns(pattern=NUMBER)
    with run_folder(root / "patterns", "patterns", {"patterns": 4}, inputs=[root / "picks" / "particles.star"]) as run:
        write_tomograms(run / "tomograms.star", tomograms)
        write_particles(run / "particles.star", found, tomograms=tomograms)
        with create_stack(run / "pictures.mrcs", 4, BOX, VOXEL) as stack:
            stack[:] = rng.normal(size=stack.shape)
    write_json(root / "patterns.json", PATTERNS)
    said = {one["pattern"]: {key: one[key] for key in ("group", "name", "proposed")} for one in PATTERNS}
    (root / "patterns.yaml").write_text(yaml.safe_dump(said))
    embed(root, tomograms, found)
    return root


def embed(root: Path, tomograms: list[Tomogram], found: Particles) -> None:
    """The last stage: a cube of 4 voxels at each member, painted in every plane so that any slice cuts it."""
    decided = {str(one["pattern"]): [one["group"], one["name"]] for one in PATTERNS}
    table = root / "patterns" / "particles.star"
    with run_folder(root / "embedding", "embed", {"contact": 250.0, "patterns": decided}, inputs=[table]) as run:
        write_tomograms(run / "tomograms.star", tomograms)
        write_particles(run / "particles.star", found, tomograms=tomograms)
        for tomogram in tomograms:
            (run / tomogram.name).mkdir()
            write_labels(run / tomogram.name / "labels.mrc", Labels(painted(found.of_tomogram(tomogram.name)), VOXEL))
        with (run / "interactions.csv").open("w", newline="") as file:
            table_of = csv.writer(file)
            table_of.writerow(["names", *COLUMNS])
            table_of.writerows([["", *row] for row in PAIRS])


def painted(members: Particles) -> np.ndarray:
    """Labels that are the same in all planes."""
    labels = np.zeros(SHAPE, np.uint8)
    for number, place in zip(members["pattern"], members.position / VOXEL, strict=True):
        y, x = np.rint(place[1:]).astype(int)
        labels[:, y - 2 : y + 2, x - 2 : x + 2] = number
    return labels


@pytest.fixture(scope="module")
def page(mined: Path) -> str:
    return write_report([mined], mined.parent / "report.html").read_text(encoding="utf-8")


@pytest.fixture
def copy(mined: Path, tmp_path: Path) -> Path:
    """The run for a test to damage."""
    return Path(shutil.copytree(mined, tmp_path / "mined"))


def page_of(folder: Path) -> str:
    return write_report([folder], folder.parent / "r.html").read_text(encoding="utf-8")


def stage_of(folder: Path, file: str) -> Path:
    """The run that a file belongs to or lies beside."""
    return folder / file.partition("/")[0].partition(".")[0]


def notes(page: str) -> list[str]:
    return [html.unescape(note) for note in re.findall(r'role="note">([^<]*)<', page)]


def cards_of(page: str) -> list[str]:
    return re.findall(r"<article.*?</article>", section_of(page, "Patterns"), re.DOTALL)


def facts_in(part: str) -> dict[str, str]:
    return dict(re.findall(r"<dt>([^<]*)</dt><dd>([^<]*)</dd>", part))


def test_every_pattern_has_its_card_with_the_numbers_of_the_files(page: str) -> None:
    cards = cards_of(page)
    called = [f"small globule ({1})", f"{NASTY} (2)", "noise (3)", "$a$b (4)"]
    assert [html.unescape(re.search(r"<h4>.*?</svg><span>(.*?)</span>", card)[1]) for card in cards] == called  # type: ignore[index]
    facts = [facts_in(card) for card in cards]
    assert [fact["particles"] for fact in facts] == ["12 · 40.0%", "9 · 30.0%", "6 · 20.0%", "3 · 10.0%"]
    assert [fact["group"] for fact in facts] == [one["group"] for one in PATTERNS]
    assert facts[0]["near the border"] == "25%"
    assert facts[0]["likeness"] == "0.98"
    assert "likeness" not in facts[1]
    assert facts[0]["lie in"] == "2 tomograms, 8 in one"
    assert all(one["evidence"] in card for one, card in zip(PATTERNS, cards, strict=True))


def test_what_a_person_decided_is_seen(page: str) -> None:
    decided = ["by a person" in card for card in cards_of(page)]
    assert decided == [False, True, False, True]
    facts = facts_in(cards_of(page)[1])
    assert (facts["group"], facts["proposed"]) == ("filament", "large globule")
    assert "A person decided on 2 of them." in page
    assert NASTY not in page


def test_groups_add_up(page: str) -> None:
    [table] = Reader(section_of(page, "Patterns")).tables
    assert table[1:] == [
        ["small globule", "2", "1", "15", "50.0%"],
        ["filament", "1", "1", "9", "30.0%"],
        ["noise", "1", "–", "6", "20.0%"],
        ["all", "4", "2", "30", "100.0%"],
    ]


def test_pictures_are_central_slices_of_the_stack(mined: Path, page: str) -> None:
    from tomotif.io.stack import open_stack

    stack, _ = open_stack(mined / "patterns" / "pictures.mrcs")
    for picture, card in zip(stack, cards_of(page), strict=True):
        images = central_slices(picture.astype(np.float32), planes=("xy", "xz", "yz"))
        expected = side_by_side(list(stretch(np.stack(images), 1, 99.8)))
        np.testing.assert_array_equal(decode(Reader(card).images[0]["src"]), expected)


def test_dots_of_a_card_lie_at_the_members() -> None:
    position = np.array([[0.0, 100.0, 400.0], [200.0, 300.0, 800.0]])
    tomogram = Tomogram(Volume(np.zeros((20, 40, 80), np.int8), 10.0), "t")
    made = footprint(Particles.create("t", position), {"t": tomogram})
    assert made is not None
    assert (made.height, made.depth) == (50.0, 25.0)
    assert made.dots == f"M50.0 12.5h0M100.0 37.5h0M50.0 {made.side:.1f}h0M100.0 {made.side + 25:.1f}h0"
    many = footprint(Particles.create("t", np.full((5000, 3), 50.0)), {"t": tomogram})
    assert many is not None
    assert many.dots.count("M") == 2 * DOTS
    assert footprint(Particles.create("elsewhere", position), {"t": tomogram}) is None


def test_paint_lies_on_the_members(mined: Path, page: str) -> None:
    section = section_of(page, "Patterns in their place")
    titles = re.findall(r'<h3>Patterns in the tomogram <span class="of">(\w+)<', section)
    assert titles == ["one", "two"]
    figures = re.findall(r'<figure class="slice">.*?</figure>', section, re.DOTALL)
    assert len(figures) == 2 * 4
    particles = read_run(mined / "patterns", "patterns").particles
    for tomogram, figure in ((titles[0], figures[0]), (titles[1], figures[4])):
        expected = painted(particles.of_tomogram(tomogram))[0]
        areas = re.findall(r'<path class="k\d+[ \w]*" d="([^"]+)".*?<title>[^<]*\((\d)\)</title>', figure)
        assert sorted(int(number) for _, number in areas) == np.unique(expected)[1:].tolist()
        for path, number in areas:
            assert covered(path) == pytest.approx((expected == int(number)).sum(), rel=0.1)
            rows, columns = np.nonzero(expected == int(number))
            points = np.array(re.findall(r"([\d.]+) ([\d.]+)", path), float)
            np.testing.assert_allclose(points.min(axis=0), [columns.min(), rows.min()])
            np.testing.assert_allclose(points.max(axis=0), [columns.max() + 1, rows.max() + 1])


def covered(path: str) -> float:
    """Area inside the closed lines of a path; holes run the other way."""
    total = 0.0
    for part in re.findall(r"M([^Z]+)Z", path):
        x, y = np.array(part.split(), float).reshape(-1, 2).T
        total += 0.5 * float(np.sum(x * np.roll(y, -1) - y * np.roll(x, -1)))
    return abs(total)


def test_a_pattern_has_one_colour_on_cards_paint_and_table(page: str) -> None:
    colours: dict[str, set[str]] = {}
    for colour, name in re.findall(r'<circle cx="7"[^>]*stroke="(#\w{6})"[^>]*/></svg><span>([^<]+)</span>', page):
        colours.setdefault(name, set()).add(colour)
    for colour, name in re.findall(r'<path class="k\d+[^"]*" d="[^"]+" fill="(#\w{6})".*?<title>([^<]+)</title>', page):
        colours[name].add(colour)
    patterns = [colours[html.escape(name)] for name in ("small globule (1)", f"{NASTY} (2)", "noise (3)", "$a$b (4)")]
    assert [len(found) for found in patterns] == [1, 1, 1, 1]
    assert len(set.union(*patterns)) == 4


def test_noise_is_hidden_until_it_is_asked_for(page: str) -> None:
    boxes = re.findall(r'<input type="checkbox" class="f(\d+)"( checked)?>.*?<span>([^<]+)</span>', page)
    assert {name: bool(on) for _, on, name in boxes if "(" in name} == {
        "small globule (1)": True, html.escape(f"{NASTY} (2)"): True, "noise (3)": False, "$a$b (4)": True,
    }  # fmt: skip
    for index, *_ in boxes:
        assert f".f{index}:not(:checked)) .k{index} " in page


def test_pairs_repeat_the_file_with_the_surest_first_and_marked(page: str) -> None:
    section = section_of(page, "Patterns in their place")
    [table] = Reader(section).tables
    two = f"{NASTY} (2)"
    assert table[1:] == [
        ["small globule (1)", two, "12", "9", "1.5", "× 4.75", "0.001", "0.004"],
        [two, "$a$b (4)", "9", "0", "2.2", "× 0.18", "0.002", "0.004"],
        [two, "small globule (1)", "9", "3", "1.8", "× 1.52", "0.03", "0.06"],
        ["small globule (1)", "small globule (1)", "12", "0", "0.0", "× 1.00", "1", "1"],
    ]
    assert section.count('<tr class="sure">') == 2
    assert "within 25 nm" in section
    assert html.unescape(
        f"most surely small globule (1) at {two} (× 4.8); 1 pair does so less often."
    ) in html.unescape(page)


def test_the_heat_map_names_patterns_and_marks_sure_pairs(page: str) -> None:
    [chart] = re.findall(r'<svg class="chart".*?</svg>', section_of(page, "Patterns in their place"), re.DOTALL)
    words = [html.unescape(word) for word in re.findall(r"<text[^>]*>([^<]*)</text>", chart)]
    assert {"small globule (1)", f"{NASTY} (2)", "$a$b (4)", "1", "2", "4"} <= set(words)
    assert "noise (3)" not in words
    assert chart.lower().count("fill: #17211f") == 2
    fills = set(re.findall(r"fill: (#\w{6})", chart))
    assert {"#e0600f", "#3d7ff0"} <= fills  # the most and the least enriched, both beyond or at the end of the scale


def test_the_autoencoder_shows_its_scores_and_its_curve(page: str) -> None:
    section = section_of(page, "Autoencoder")
    facts = facts_in(section)
    assert facts["live numbers"] == "14 of 32"
    assert facts["squared error a voxel"] == "0.327"
    assert facts["variation of the drawings"] == "50%"
    assert (facts["boxes trained on"], facts["validated on"], facts["epochs"]) == ("26", "4", "3")
    assert section.count('<svg class="chart"') == 1


def test_the_page_tells_it_in_a_sentence(page: str) -> None:
    assert "Without labels, 30 particles fell into 4 patterns" in page
    tiles = facts_in(page.partition("<main")[0])
    assert (tiles["Patterns"], tiles["Pairs side by side"]) == ("4", "1")
    assert notes(page) == []


@pytest.mark.parametrize("lost", ["autoencoder", "embedding", "patterns"])
def test_a_page_of_some_stages_only(copy: Path, lost: str) -> None:
    stages = ["picks", "autoencoder", "patterns", "embedding"]
    gone = {"autoencoder": ["autoencoder"], "embedding": ["embedding"], "patterns": ["patterns", "embedding"]}[lost]
    for stage in gone:
        shutil.rmtree(copy / stage)
    if lost == "patterns":
        (copy / "patterns.json").unlink()
        (copy / "patterns.yaml").unlink()
    text = page_of(copy)
    titles = dict(zip(stages, ("Picked particles", "Autoencoder", "Patterns", "Patterns in their place"), strict=True))
    assert [stage for stage in stages if f">{titles[stage]}</h2>" in text] == [s for s in stages if s not in gone]
    assert notes(text) == []
    if lost == "embedding":  # then the members themselves are shown
        rings = re.findall(r"<title>([^<]+)</title></circle>", section_of(text, "Patterns"))
        assert "small globule (1)" in rings


@pytest.mark.parametrize(
    ("lost", "told"),
    [
        ("patterns.json", "no patterns.json"),
        ("patterns/pictures.mrcs", "no pictures.mrcs in patterns"),
        ("patterns/particles.star", "no particles.star in patterns"),
        ("patterns/tomograms.star", "no tomograms.star in patterns"),
        ("embedding/tomograms.star", "no tomograms.star in embedding"),
        ("embedding/two/labels.mrc", "labels.mrc"),
        ("embedding/interactions.csv", "no interactions.csv in embedding"),
        ("autoencoder/history.csv", "no history.csv in autoencoder"),
    ],
)
def test_a_missing_file_is_told(copy: Path, lost: str, told: str) -> None:
    (copy / lost).unlink()
    text = page_of(stage_of(copy, lost))
    assert any(told in note for note in notes(text))
    if lost.startswith("patterns"):
        assert len(cards_of(text)) == 4
    if lost == "patterns.json":
        assert [facts_in(card)["particles"][:2].strip() for card in cards_of(text)] == ["12", "9", "6", "3"]
        assert "pattern 2" in cards_of(text)[1]


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("patterns.json", "{"),
        ("patterns.json", "[]"),
        ("patterns.json", '[{"pattern": "x"}, 3, {"pattern": 9, "particles": null}]'),
        ("patterns.yaml", "1: [unclosed"),
        ("embedding/interactions.csv", "pattern,neighbour\n1,2\n"),
        ("embedding/interactions.csv", ""),
        ("embedding/two/labels.mrc", "nothing"),
        ("autoencoder/model/model.json", "[]"),
    ],
)
def test_damaged_files_do_not_stop_the_page(copy: Path, file: str, content: str) -> None:
    (copy / file).write_text(content)
    assert "</html>" in page_of(stage_of(copy, file))


def test_labels_of_another_tomogram_are_refused(copy: Path) -> None:
    write_labels(copy / "embedding" / "two" / "labels.mrc", Labels(np.ones((2, 3, 4), np.uint8), VOXEL))
    assert any("labels of the shape (24, 40, 64) of two" in note for note in notes(page_of(copy / "embedding")))


def test_what_a_person_wrote_since_the_last_run_is_told(copy: Path) -> None:
    said = yaml.safe_load((copy / "patterns.yaml").read_text())
    said[3] |= {"name": "vault"}
    del said[2]["group"]
    (copy / "patterns.yaml").write_text(yaml.safe_dump(said))
    assert notes(page_of(copy / "patterns")) == [
        "patterns.yaml says something else of patterns 2 and 3 than the last run knew: run tomotif mine again."
    ]


def test_an_embedding_of_before_a_change_says_so(copy: Path) -> None:
    decided = json.loads((copy / "patterns.json").read_text())
    decided[0] |= {"name": "ribosome"}
    write_json(copy / "patterns.json", decided)
    (copy / "patterns.yaml").unlink()
    text = page_of(copy / "embedding")
    assert notes(text) == ["embedding was made before groups or names changed: run tomotif mine again."]
    assert "ribosome (1)" in text


def test_patterns_are_shown_whatever_command_made_them(copy: Path) -> None:
    record = json.loads((copy / "patterns" / "run.json").read_text())
    write_json(copy / "patterns" / "run.json", {**record, "command": "align"})
    assert len(cards_of(page_of(copy / "patterns"))) == 4


def test_patterns_come_by_size_and_then_by_number(copy: Path) -> None:
    write_json(
        copy / "patterns.json", [{**one, "particles": size} for one, size in zip(PATTERNS, (3, 9, 3, 20), strict=True)]
    )
    assert [one.number for one in read_patterns(read_run(copy / "patterns", ""))] == [4, 2, 1, 3]


def test_outlines_have_holes() -> None:
    ring = np.zeros((9, 9), bool)
    ring[2:7, 2:7] = True
    ring[4, 4] = False
    assert len(outline(ring)) == 2
    styles = pattern_styles([Pattern(1, "g", "g", "", "", 1)], Palette.of(["pattern1"]))
    [area] = areas_at(ring.astype(np.uint8), 1, styles, frozenset(["1"]))
    assert covered(area.path) == pytest.approx(24, abs=1)
    assert area.key.endswith("quiet")


def test_large_planes_are_looked_at_pixel_by_pixel() -> None:
    plane = np.zeros((100, 200), np.uint16)
    plane[40:80, 120:180] = 7
    [area] = areas_at(plane, 4, Palette({}), frozenset())
    points = np.array(re.findall(r"([\d.]+) ([\d.]+)", area.path), float)
    np.testing.assert_allclose([points.min(axis=0), points.max(axis=0)], [[120, 40], [180, 80]])


def test_only_the_planes_shown_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = np.zeros((100, 30, 50), np.int8)
    data[:, 10:20, 10:20] = 1
    asked = Labels(data.view(Watched), 10.0)
    monkeypatch.setattr("tomotif.report.embedding.open_labels", lambda _: asked)
    tomogram = Tomogram(Volume(np.zeros(data.shape, np.int8), 10.0), "t")
    members = Particles.create("t", np.full((6, 3), 500.0), columns={"pattern": np.ones(6, int)})
    Watched.asked = 0
    view = painted_view(tmp_path, tomogram, members, Palette.of(["1"]), frozenset())
    assert Watched.asked == 4 * 30 * 50
    assert [len(one.areas) for one in view.slices] == [1, 1, 1, 1]


def test_long_tables_are_cut_but_sure_pairs_stay() -> None:
    pair = Pair(1, 2, 10, 250.0, 0.5, 0.1, 3.0, 0.001, 0.01)
    sure = [pair] * (ROWS + 5)
    unsure = [replace(pair, pattern=i, neighbour=i + 1, q_value=0.5) for i in range(3, 200)]
    assert len(pair_table([*sure, *unsure], Palette({})).rows) == ROWS + 5
    assert len(pair_table([*sure[:3], *unsure], Palette({})).rows) == ROWS
    assert crossed([*sure, *unsure]) == list(range(1, CROSSED + 1))


PROBE = """<pre id="probe"></pre><script>
addEventListener("load", () => {
  const view = document.querySelector(".card .view:has(.areas)"), box = view.querySelector(".legend input");
  const area = view.querySelector(".areas ." + box.className.replace("f", "k"));
  const shown = getComputedStyle(area).display;
  box.click();
  document.getElementById("probe").textContent = JSON.stringify({
    problems, shown, hidden: getComputedStyle(area).display,
    overflow: document.documentElement.scrollWidth - innerWidth,
    cards: [...document.querySelectorAll(".pattern")].map((card) => card.scrollWidth - card.clientWidth),
    dots: [...document.querySelectorAll(".lies svg")].map((svg) => svg.getBoundingClientRect().width),
  });
});
</script></body>"""


@pytest.mark.browser
@pytest.mark.parametrize("width", [1280, 520])
def test_the_page_renders_in_a_browser(page: str, tmp_path: Path, width: int) -> None:
    file = tmp_path / "probed.html"
    file.write_text(page.replace("<head>", CATCH, 1).replace("</body>", PROBE, 1), encoding="utf-8")
    found, log = in_chromium(file, tmp_path / "profile", width)
    assert found["problems"] == []
    assert "CONSOLE" not in log
    assert (found["shown"], found["hidden"]) == ("inline", "none")
    assert found["overflow"] <= 0
    assert found["cards"] == [0, 0, 0, 0]
    assert min(found["dots"]) > 80
