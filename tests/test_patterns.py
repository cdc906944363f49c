"""Drawn pictures get their groups in any pose and under noise; what a person decides outlives a rerun."""

from __future__ import annotations

from dataclasses import replace
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from tests.pattern_pictures import KINDS, drawn
from tomotif.core import (
    InputError,
    MissingWedge,
    OutputError,
    Particles,
    Subtomograms,
    Tomogram,
    UnknownNameError,
    Volume,
)
from tomotif.core.geometry import random_rotations
from tomotif.io.mrc import open_tomogram
from tomotif.tasks.cluster import ClusterSettings, cluster
from tomotif.tasks.extract import ExtractSettings, extract, place_boxes
from tomotif.tasks.patterns import (
    FILE_NAME,
    GROUPS,
    Override,
    Pattern,
    PatternSettings,
    propose_groups,
    read_overrides,
    set_aside,
    with_groups,
    with_overrides,
    write_patterns,
)
from tomotif.tasks.pick import pick

TURNS = random_rotations(6, np.random.default_rng(11))


def members(count: int, each: int = 5) -> Particles:
    """So many members of each pattern, far from the border."""
    number = np.repeat(np.arange(1, count + 1), each)
    return Particles.create("t", np.full((len(number), 3), 2000.0), columns={"pattern": number})


def all_kinds(turn: Rotation, noise: float, seed: int, **box: float | int) -> NDArray[np.float32]:
    """One picture of each kind."""
    pictures = [drawn(kind, turn, noise=noise, seed=100 * seed + i, **box) for i, kind in enumerate(KINDS)]  # type: ignore[arg-type]
    return np.stack(pictures)


def proposed(pictures: NDArray[np.float32], voxel_size: float = 20.0) -> list[Pattern]:
    return propose_groups(pictures, members(len(pictures)), voxel_size=voxel_size)


@pytest.mark.parametrize("noise", [0.0, 0.2, 0.4])
@pytest.mark.parametrize("turn", range(len(TURNS)))
def test_every_kind_gets_its_group(turn: int, noise: float) -> None:
    patterns = proposed(all_kinds(TURNS[turn], noise, turn))
    assert {kind: p.group for kind, p in zip(KINDS, patterns, strict=True)} == KINDS
    assert [p.number for p in patterns] == list(range(1, 9)) and all(p.members.particles == 5 for p in patterns)


@pytest.mark.parametrize(("voxel_size", "box_px"), [(13.0, 36), (10.0, 48), (27.0, 18)])
def test_groups_do_not_depend_on_the_voxel_size(voxel_size: float, box_px: int) -> None:
    pictures = all_kinds(TURNS[0], 0.2, 0, voxel_size=voxel_size, box_px=box_px)
    assert [p.group for p in proposed(pictures, voxel_size)] == list(KINDS.values())


def test_groups_do_not_depend_on_scale_and_offset() -> None:
    pictures = 0.03 * all_kinds(TURNS[1], 0.2, 1) - 4
    assert [p.group for p in proposed(pictures)] == list(KINDS.values())


def test_evidence_has_numbers_and_units() -> None:
    found = dict(zip(KINDS, proposed(all_kinds(TURNS[2], 0.2, 2)), strict=True))
    assert "Å radius" in found["large ball"].evidence and "times the background" in found["large ball"].evidence
    assert "a sheet (planarity 0." in found["membrane"].evidence and "of its rim" in found["membrane"].evidence
    assert " and " in found["two balls"].evidence and "one-sidedness" in found["edge"].evidence
    assert all("\n" not in p.evidence for p in found.values())
    plain = found["ball at membrane"].as_dict()
    assert plain["group"] == "interaction" and [b["radius"] > 50 for b in plain["bodies"]] == [True, True]


def test_a_faint_picture_beside_strong_ones_is_noise() -> None:
    pictures = np.stack([drawn("large ball"), 0.05 * drawn("small ball")])
    assert [p.group for p in proposed(pictures)] == ["large globule", "noise"]
    assert (
        "5% of that of the strongest" in proposed(pictures)[1].evidence or "contrast" in proposed(pictures)[1].evidence
    )


def test_where_globules_are_large_is_a_setting() -> None:
    settings = PatternSettings(large_radius=150)
    (one,) = propose_groups(drawn("large ball")[None], members(1), settings, voxel_size=20.0)
    assert one.group == "small globule"


def test_members_at_the_tomogram_border_make_a_border() -> None:
    tomogram = Tomogram(Volume(np.broadcast_to(np.float32(0), (100, 100, 100)), 20.0), "t")
    rng = np.random.default_rng(0)
    inside, edge = rng.uniform(500, 1500, (90, 3)), rng.uniform(500, 1500, (30, 3))
    edge[:, 0] = 60
    particles = Particles.create("t", np.concatenate([inside, edge]), columns={"pattern": np.repeat([1, 2], [90, 30])})
    pictures = np.stack([drawn("small ball")] * 2)
    patterns = propose_groups(pictures, particles, voxel_size=20.0, tomograms=[tomogram])
    assert [p.group for p in patterns] == ["small globule", "carbon edge or border"]
    assert "100% of its members" in patterns[1].evidence and patterns[0].members.near_border == 0


def test_boxes_are_turned_back_before_they_are_compared() -> None:
    turns = random_rotations(20, np.random.default_rng(1))
    boxes = np.stack([drawn("ball at membrane", turn, noise=0.3, seed=i) for i, turn in enumerate(turns)])
    picture = drawn("ball at membrane")

    def agreement(orientation: Rotation | None) -> float:
        particles = Particles.create("t", np.zeros((20, 3)), orientation, {"pattern": np.ones(20, np.int64)})
        subtomograms = Subtomograms(particles, boxes.astype(np.float16), 20.0, MissingWedge())
        (one,) = propose_groups(picture[None], particles, voxel_size=20.0, subtomograms=subtomograms)
        assert one.members.agreement is not None
        return one.members.agreement

    assert agreement(turns) > 0.9 > 0.75 > agreement(None)


def test_bad_input_is_refused() -> None:
    ball = drawn("large ball")[None]
    with pytest.raises(InputError, match="one cubic picture a pattern"):
        propose_groups(ball[0], members(1), voxel_size=20.0)
    with pytest.raises(InputError, match="NaN or infinity in pattern 1"):
        propose_groups(np.nan * ball, members(1), voxel_size=20.0)
    with pytest.raises(InputError, match="there are 1 pictures, got 1 to 3"):
        propose_groups(ball, members(3), voxel_size=20.0)
    with pytest.raises(UnknownNameError, match="pattern"):
        propose_groups(ball, Particles.create("t", np.zeros((1, 3))), voxel_size=20.0)
    small = Subtomograms(members(1), np.zeros((5, 8, 8, 8), np.float16), 20.0, MissingWedge())
    with pytest.raises(InputError, match="boxes of 8 and pictures of 24"):
        propose_groups(ball, members(1), voxel_size=20.0, subtomograms=small)


def test_a_pattern_without_members_is_described_too() -> None:
    particles = Particles.create("t", np.zeros((1, 3)), columns={"pattern": [0]})
    (one,) = propose_groups(drawn("rod")[None], particles, voxel_size=20.0)
    assert (one.group, one.members.particles) == ("filament", 0)


def test_particles_learn_their_group() -> None:
    patterns = proposed(np.stack([drawn("large ball"), drawn("rod")]))
    particles = Particles.create("t", np.zeros((3, 3)), columns={"pattern": [2, 0, 1]})
    assert with_groups(particles, patterns)["group"].tolist() == ["filament", "", "large globule"]


# --------------------------------------------------------------------------------------------------------- the file


@pytest.fixture(scope="module")
def patterns() -> list[Pattern]:
    return proposed(all_kinds(TURNS[0], 0.2, 0))


def test_an_untouched_file_changes_nothing(tmp_path: Path, patterns: list[Pattern]) -> None:
    path = tmp_path / FILE_NAME
    assert write_patterns(path, patterns) == patterns
    assert read_overrides(path, len(patterns)) == {}
    text = path.read_text(encoding="utf-8")
    assert all(group in text for group in GROUPS) and all(p.evidence in text.replace("\n", " ") for p in patterns)


def test_what_a_person_decides_outlives_a_rerun(tmp_path: Path, patterns: list[Pattern]) -> None:
    path = tmp_path / FILE_NAME
    write_patterns(path, patterns)
    text = path.read_text(encoding="utf-8").replace(
        "group: filament", "group: large globule  # seen under the microscope"
    )
    path.write_text(text.replace("name: ''", "name: ribosome", 1), encoding="utf-8")
    expected = {1: Override(name="ribosome"), 6: Override("large globule")}
    assert read_overrides(path, len(patterns)) == expected
    again = write_patterns(path, patterns)
    assert read_overrides(path, len(patterns)) == expected
    assert (again[0].name, again[0].label) == ("ribosome", "ribosome (1)")
    assert (again[5].group, again[5].proposed) == ("large globule", "filament")
    assert again[1] == patterns[1]
    assert with_overrides(patterns, expected) == again


def test_a_better_proposal_comes_through_where_nobody_objected(tmp_path: Path, patterns: list[Pattern]) -> None:
    path = tmp_path / FILE_NAME
    write_patterns(path, proposed(np.stack([drawn("small ball")] * 8)))
    assert write_patterns(path, patterns) == patterns


def test_decisions_on_other_patterns_are_set_aside_and_none_is_lost(tmp_path: Path, patterns: list[Pattern]) -> None:
    path, *before, last = tmp_path / FILE_NAME, *patterns
    others = [*before, replace(last, members=replace(last.members, particles=99))]
    assert set_aside(path, patterns) is None  # there is no file yet
    for number, name in enumerate(("ribosome", "membrane"), 1):
        write_patterns(path, patterns)
        path.write_text(path.read_text(encoding="utf-8").replace("name: ''", f"name: {name}", 1), encoding="utf-8")
        assert set_aside(path, patterns) is None and name in path.read_text(encoding="utf-8")
        kept = set_aside(path, others)
        assert kept == tmp_path / f"patterns.before{number}.yaml" and not path.exists()
        assert name in kept.read_text(encoding="utf-8")
    write_patterns(path, patterns)  # nobody decided anything
    assert set_aside(path, others) is None and not path.exists() and len(list(tmp_path.iterdir())) == 2
    path.write_text("2: {name: membrane}", encoding="utf-8")
    assert set_aside(path, others) is None and path.exists()


def test_few_words_do(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("3: {group: filament, name: 13}\n2:\n  name: membrane\n", encoding="utf-8")
    assert read_overrides(path, 3) == {3: Override("filament", "13"), 2: Override(name="membrane")}
    path.write_text("", encoding="utf-8")
    assert read_overrides(path, 3) == {}


def test_all_problems_are_told_together_in_one_line(tmp_path: Path) -> None:
    path = tmp_path / FILE_NAME
    path.write_text(
        "1: {group: surface pach}\n9: {group: noise}\n2: {grup: noise}\n3: filament\n4: {name: [a]}\n5: {group: blob}\n"
        "6: {name: a}\n6: {name: b}\nx: {}\n",
        encoding="utf-8",
    )
    with pytest.raises(InputError) as caught:
        read_overrides(path, 8)
    message = str(caught.value)
    assert "\n" not in message
    for part in (
        "unknown group 'surface pach' of pattern 1; did you mean 'surface patch'?",
        "expected patterns from 1 to 8, got 9",
        "unknown key 'grup' of pattern 2",
        "expected 'group' and 'name' of pattern 3, got 'filament'",
        "expected a name of pattern 4",
        "unknown group 'blob' of pattern 5; groups: surface patch",
        "pattern 6 stands there twice",
        "got 'x'",
    ):
        assert part in message, part


@pytest.mark.parametrize(("text", "message"), [("1: {", "expected YAML"), ("- 1\n", "expected entries such as")])
def test_what_is_no_such_file_is_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / FILE_NAME
    path.write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match=message):
        read_overrides(path, 3)
    with pytest.raises(InputError, match="does not exist"):
        read_overrides(tmp_path / "other.yaml", 3)


def test_a_damaged_file_is_not_written_over(tmp_path: Path, patterns: list[Pattern]) -> None:
    path = tmp_path / FILE_NAME
    path.write_text("1: {group: blob}", encoding="utf-8")
    with pytest.raises(InputError, match="unknown group"):
        write_patterns(path, patterns)
    assert path.read_text(encoding="utf-8") == "1: {group: blob}"
    with pytest.raises(OutputError):
        write_patterns(tmp_path / "nowhere" / FILE_NAME, patterns)


# --------------------------------------------------------------------------------------------------------- a real cell


def test_ribosomes_and_membrane_of_a_real_cell_are_told_apart() -> None:
    tomogram = open_tomogram(Path(str(files("tomotif") / "resources" / "mpneumoniae_20A.mrc")))
    picks = pick(tomogram)
    settings = ExtractSettings(box_px=24)
    placed = place_boxes(picks, [tomogram], settings)
    stack = np.zeros((len(placed), 24, 24, 24), np.float16)
    placed = extract(picks, [tomogram], settings, stack)
    grouped = cluster(Subtomograms(placed, stack, 20.0, tomogram.missing_wedge), ClusterSettings(clusters=8))
    number = grouped["cluster"].to_numpy(np.int64)
    pictures = np.stack([stack[number == i].astype(np.float32).mean(axis=0) for i in range(1, 9)])
    patterns = propose_groups(pictures, grouped.with_columns(pattern=number), voxel_size=20.0, tomograms=[tomogram])
    groups = [p.group for p in patterns]
    assert groups[0] == "large globule"  # the cluster that is ribosome-like
    assert groups.count("surface patch") == 1 and groups.count("large globule") == 1
    membrane = number == 1 + groups.index("surface patch")
    assert 150 < membrane.sum() < 600 and 80 < patterns[0].shape.bodies[0].radius < 125
