"""The command line: help is quick, bad input is one clear line with exit code 2, and no partial output stays behind."""

from __future__ import annotations

import resource
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import mrcfile
import numpy as np
import pytest

from tests.conftest import shell_stack
from tomotif.cli.app import COMMANDS, main
from tomotif.core import MissingWedge, Particles
from tomotif.engine.model_folder import ModelCard, save_model
from tomotif.io.files import read_json
from tomotif.io.mrc import open_tomogram, write_volume
from tomotif.io.stack import create_stack, write_subtomogram_table
from tomotif.io.star import read_particles, write_particles, write_tomograms
from tomotif.models import architecture_names, build_model

SHAPE = (40, 44, 48)


def run(*arguments: str | Path, code: int = 0) -> None:
    try:
        main([str(a) for a in arguments])
        exit_code = 0
    except SystemExit as stop:
        exit_code = int(stop.code or 0)
    assert exit_code == code


def refused(capsys: pytest.CaptureFixture[str], output: Path, *arguments: str | Path) -> str:
    """Run a command that must fail: exit code 2, one line, nothing left at the output. Gives the line."""
    capsys.readouterr()
    run(*arguments, "--output", output, code=2)
    captured = capsys.readouterr()
    lines = captured.err.strip().splitlines()
    assert len(lines) == 1 and lines[0].startswith("tomotif: "), captured.err
    assert "Traceback" not in captured.err + captured.out
    assert not output.exists()
    return lines[0]


@pytest.fixture
def tomogram(tmp_path: Path) -> Path:
    path = tmp_path / "050.mrc"
    write_volume(path, np.random.default_rng(0).normal(size=SHAPE).astype(np.float32), 10.0)
    return path


@pytest.fixture
def picks(tomogram: Path) -> Path:
    """A star file of three particles beside tomograms.star."""
    opened = open_tomogram(tomogram)
    write_tomograms(tomogram.with_name("tomograms.star"), [opened])
    star = tomogram.with_name("particles.star")
    write_particles(star, Particles.create("050", np.full((3, 3), 200.0)), tomograms=[opened])
    return star


@pytest.fixture
def extraction(tmp_path: Path, picks: Path) -> Path:
    """A folder as `extract` leaves it: 12 boxes of 16 voxels of 10 Å with classes."""
    folder = tmp_path / "extraction"
    folder.mkdir()
    made = shell_stack(12)
    with create_stack(folder / "subtomograms.mrcs", 12, 16, 10.0) as stack:
        stack[:] = made.stack
    tomogram = open_tomogram(tmp_path / "050.mrc")
    write_tomograms(folder / "tomograms.star", [tomogram])
    columns = {"class": made.particles["class"].to_numpy(), "stack_index": np.arange(12)}
    particles = Particles.create("050", np.full((12, 3), 200.0), columns=columns)
    write_subtomogram_table(
        folder / "particles.star", particles, missing_wedge=MissingWedge(), voxel_size=10.0, tomograms=[tomogram]
    )
    return folder


@pytest.fixture
def model(tmp_path: Path) -> Path:
    card = ModelCard(architecture="motif3d", classes=("ball", "shell"), box_px=16, voxel_size=10.0)
    save_model(tmp_path / "model", build_model("motif3d", 16, 2), card)
    return tmp_path / "model"


def test_help_answers_in_half_a_second() -> None:
    def seconds() -> float:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        found = subprocess.run([sys.executable, "-m", "tomotif", "--help"], capture_output=True, text=True, check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        assert all(name in found.stdout for name in COMMANDS)
        # processor time: it is what is waited for on an idle machine, and does not count what else runs on this one
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    assert min(seconds() for _ in range(3)) < 0.5


def test_importing_does_nothing_heavy() -> None:
    code = "import sys, tomotif.cli.app; print(sorted({'torch', 'openvino', 'lightning', 'pandas'} & set(sys.modules)))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_every_command_explains_itself(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    run(command, "--help")
    assert COMMANDS[command].split()[0].lower() in capsys.readouterr().out.lower() or command == "demo"


def test_missing_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "none.mrc" in refused(capsys, tmp_path / "out", "pick", tmp_path / "none.mrc")


def test_not_an_mrc(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "text.mrc").write_text("not a tomogram" * 200)
    assert "MRC" in refused(capsys, tmp_path / "out", "pick", tmp_path / "text.mrc")


def test_truncated(tomogram: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tomogram.write_bytes(tomogram.read_bytes()[:-1000])
    assert "bytes" in refused(capsys, tmp_path / "out", "pick", tomogram)


@pytest.mark.parametrize("size", [0.0, 1.0])
def test_unknown_voxel_size(tomogram: Path, tmp_path: Path, size: float, capsys: pytest.CaptureFixture[str]) -> None:
    with mrcfile.open(tomogram, "r+") as file:
        file.voxel_size = size
    assert "--voxel-size" in refused(capsys, tmp_path / "out", "pick", tomogram)


def test_anisotropic_voxels(tomogram: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with mrcfile.open(tomogram, "r+") as file:
        file.voxel_size = (10.0, 10.0, 12.0)
    assert "12" in refused(capsys, tmp_path / "out", "pick", tomogram)


@pytest.mark.parametrize(("value", "word"), [(np.nan, "NaN"), (np.inf, "inf"), (3.0, "constant")])
def test_nan_or_constant(
    tomogram: Path, tmp_path: Path, value: float, word: str, capsys: pytest.CaptureFixture[str]
) -> None:
    data = np.full(SHAPE, 3.0, np.float32)
    data[5, 6, 7] = value
    write_volume(tomogram, data, 10.0)
    assert word.lower() in refused(capsys, tmp_path / "out", "pick", tomogram).lower()


def test_box_larger_than_the_tomogram(picks: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = refused(capsys, tmp_path / "out", "extract", picks, "--box-px", "64")
    assert "64" in line and "40" in line


def test_all_picks_outside(picks: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    opened = open_tomogram(tmp_path / "050.mrc")
    write_particles(picks, Particles.create("050", np.full((3, 3), 9000.0)), tomograms=[opened])
    assert "outside" in refused(capsys, tmp_path / "out", "extract", picks, "--box-px", "16")


def test_star_without_needed_columns(picks: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    picks.write_text("data_particles\n\nloop_\n_rlnAngleRot #1\n_rlnAngleTilt #2\n1.0 2.0\n")
    assert "oordinate" in refused(capsys, tmp_path / "out", "extract", picks)


def test_star_naming_a_missing_tomogram(picks: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "050.mrc").unlink()
    assert "050.mrc" in refused(capsys, tmp_path / "out", "extract", picks)


def test_voxel_sizes_that_differ(picks: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = tmp_path / "other.mrc"
    write_volume(other, np.random.default_rng(1).normal(size=SHAPE).astype(np.float32), 14.0)
    both = [open_tomogram(tmp_path / "050.mrc"), open_tomogram(other)]
    write_tomograms(tmp_path / "tomograms.star", both)
    particles = Particles.create(["050", "other"], np.full((2, 3), 200.0))
    write_particles(picks, particles, tomograms=both)
    line = refused(capsys, tmp_path / "out", "extract", picks, "--box-px", "16")
    assert "10" in line and "14" in line


def test_a_tomogram_of_another_size_than_the_table_says(
    picks: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ("extract", picks, "--tomograms", tmp_path / "050.mrc", "--box-px", "16")
    line = refused(capsys, tmp_path / "out", *arguments, "--tomogram.voxel-size", "20")
    assert "400 × 440 × 480 Å" in line and "800 × 880 × 960 Å" in line
    run(*arguments, "--output", tmp_path / "out")


def test_model_that_does_not_fit(extraction: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for change, word in (({"box_px": 24}, "--box-px 24"), ({"voxel_size": 13.0}, "--output-voxel-size 13")):
        card = ModelCard(
            **{"architecture": "motif3d", "classes": ("a", "b"), "box_px": 16, "voxel_size": 10.0, **change}
        )
        save_model(tmp_path / "other", build_model("motif3d", card.box_px, 2), card)
        assert word in refused(capsys, tmp_path / "out", "classify", extraction, tmp_path / "other")


def test_model_without_its_weights(
    extraction: Path, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights = model / "model.safetensors"
    content = weights.read_bytes()
    weights.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    assert "changed or damaged" in refused(capsys, tmp_path / "out", "classify", extraction, model)
    weights.unlink()
    assert "model.safetensors" in refused(capsys, tmp_path / "out", "classify", extraction, model)
    shutil.rmtree(model)
    assert "model.json" in refused(capsys, tmp_path / "out", "classify", extraction, model)


def test_unknown_names_list_near_ones(extraction: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = refused(capsys, tmp_path / "out", "train", "classifier", extraction, "--model", "motif")
    assert "did you mean 'motif3d'" in line
    line = refused(capsys, tmp_path / "out", "simulate", "1bxm")
    assert "1bxn" in line


def test_unknown_class_column(
    picks: Path, extraction: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    opened = open_tomogram(tmp_path / "050.mrc")
    particles = Particles.create("050", np.full((12, 3), 200.0), columns={"stack_index": np.arange(12)})
    write_subtomogram_table(
        extraction / "particles.star", particles, missing_wedge=MissingWedge(), voxel_size=10.0, tomograms=[opened]
    )
    assert "class" in refused(capsys, tmp_path / "out", "train", "classifier", extraction)


def test_a_place_that_cannot_be_written(tomogram: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("in the way")
    assert "--output" in refused(capsys, tmp_path / "file" / "out", "pick", tomogram)


def limited(code: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)], capture_output=True, text=True, check=False
    )


def test_a_read_only_disk(
    picks: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def read_only(self: Path, *args: object, **kwargs: object) -> None:
        raise OSError(30, "Read-only file system", str(self))

    monkeypatch.setattr(Path, "mkdir", read_only)
    assert "Read-only" in refused(capsys, tmp_path / "out", "extract", picks, "--box-px", "16")


def test_a_full_disk(picks: Path, tmp_path: Path) -> None:
    """The stack is larger than the largest file this process may write: an error before the first box, not a crash."""
    code = (
        "import resource, signal, sys\nsignal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))\n"
        "from tomotif.cli.app import main\nmain(sys.argv[1:])\n"
    )
    found = limited(code, "extract", picks, "--box-px", "32", "--output", tmp_path / "out")
    assert found.returncode == 2, found.stderr
    assert len(found.stderr.strip().splitlines()) == 1 and "bytes needed" in found.stderr
    assert not (tmp_path / "out").exists()


def test_settings_from_yaml(tomogram: Path, tmp_path: Path) -> None:
    config = tmp_path / "tomotif.yaml"
    config.write_text("pick:\n  threshold: 0.5\n")
    run("--config", config, "pick", tomogram, "--output", tmp_path / "out")
    assert read_json(tmp_path / "out" / "run.json")["settings"]["threshold"] == 0.5


def test_unknown_key_in_yaml(tomogram: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = tmp_path / "tomotif.yaml"
    config.write_text("pick:\n  no_such_setting: 3\n")
    assert "no_such_setting" in refused(capsys, tmp_path / "out", "--config", config, "pick", tomogram)


def test_settings_out_of_range_are_reported_together(
    tomogram: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = refused(capsys, tmp_path / "out", "pick", tomogram, "--threshold", "-1", "--scales", "99")
    assert "threshold" in line and "scales" in line


def test_a_run_twice_is_done_once(
    extraction: Path, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "classes"
    clock: Callable[[], int] = lambda: (out / "particles.star").stat().st_mtime_ns  # noqa: E731 - one line is clearer
    run("classify", extraction, model, "-o", out)
    first = clock()
    run("classify", extraction, model, "-o", out)
    assert clock() == first
    run("classify", extraction, model, "-o", out, "--overwrite")
    assert clock() > first
    assert not (out / "shards").exists()


@pytest.mark.parametrize(
    ("content", "word"), [(None, "does not exist"), ("simulat:\n  seed: 1\n", "'simulat'"), ("pick: [", "YAML")]
)
def test_config_that_cannot_be_used(
    tomogram: Path, tmp_path: Path, content: str | None, word: str, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "tomotif.yaml"
    if content is not None:
        config.write_text(content)
    assert word in refused(capsys, tmp_path / "out", "--config", config, "pick", tomogram)


def test_a_stack_without_tomograms_is_classified(extraction: Path, model: Path, tmp_path: Path) -> None:
    opened = open_tomogram(tmp_path / "050.mrc")
    columns = {"stack_index": np.arange(12)}
    write_subtomogram_table(
        extraction / "particles.star",
        Particles.create("050", np.full((12, 3), 200.0), columns=columns),
        missing_wedge=MissingWedge(),
        voxel_size=10.0,
        tomograms=[opened],
        style="relion3.1",
    )
    (extraction / "tomograms.star").unlink()
    run("classify", extraction, model, "-o", tmp_path / "classes")
    named = read_particles(tmp_path / "classes" / "particles.star")
    np.testing.assert_allclose(named.position, 200.0)
    assert set(named["class"]) <= {"ball", "shell"}
    assert named.features is not None and named.features.shape == (12, 2)


def test_models_lists_every_network_and_what_comes_with_tomotif(capsys: pytest.CaptureFixture[str]) -> None:
    run("models", "--no-speed")
    shown = capsys.readouterr().out
    for name in architecture_names():
        assert name in shown
    assert "12A (motif3d_rif)" in shown and "20A (motif3d_rif)" in shown
