"""Simulation on disk and on the command line: specs, presets, what is written, and runs that are killed."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import mrcfile
import numpy as np
import pytest
import yaml
from pydantic import ValidationError

from tests.test_cli import refused, run
from tomotif.core import InputError, TiltSeries
from tomotif.io.files import read_json
from tomotif.io.mrc import open_labels, open_volume
from tomotif.io.star import read_blocks, read_particles, read_tomograms
from tomotif.io.tilt_series import open_tilt_series, write_tilt_series
from tomotif.pipelines.simulate import Batch, TomogramSpec, estimate, preset_names, read_spec

TINY: dict[str, Any] = {"structures": ["1bxn", "1s3x"], "shape": [24, 48, 48], "counts": [2, 1], "box_px": 16}


def spec_file(folder: Path, **changes: Any) -> Path:
    path = folder / "spec.yaml"
    path.write_text(yaml.safe_dump({key: value for key, value in (TINY | changes).items() if value is not None}))
    return path


def files_of(folder: Path) -> dict[str, bytes]:
    """Everything in a run folder that must be the same again."""
    paths = (p for p in folder.rglob("*") if p.is_file() and p.name not in ("run.json", "run.log"))
    return {str(p.relative_to(folder)): p.read_bytes() for p in paths}


# ---------------------------------------------------------------------------------------------------------- tilt series


def series(axis: Any = "y", offset: float = 0.0) -> TiltSeries:
    """Five images, not in order of angle."""
    rng = np.random.default_rng(0)
    angles = np.array([0.0, 30.0, -30.0, 60.0, -60.0])
    images = rng.normal(offset, 1, (5, 10, 12)).astype(np.float32)
    return TiltSeries(images, 13.48, angles, np.arange(5) * 3.0, np.array([4.1, 4.2, 4.0, 4.3, 3.9]), "050", axis)


@pytest.mark.parametrize(("axis", "offset", "dtype"), [("y", 0.0, np.float16), ("x", 1e5, np.float32)])
def test_a_tilt_series_comes_back_in_order_of_angle(tmp_path: Path, axis: str, offset: float, dtype: type) -> None:
    made = series(axis, offset)
    write_tilt_series(tmp_path / "050.mrcs", made)
    back = open_tilt_series(tmp_path / "050.star")
    order = [4, 2, 0, 1, 3]
    assert back.name == "050" and back.tilt_axis == axis and back.pixel_size == 13.48
    assert back.images.dtype == dtype
    np.testing.assert_allclose(back.images, made.images[order], rtol=1e-3, atol=1e-3)
    for column in ("tilt_angles", "exposure", "defocus_um"):
        np.testing.assert_array_equal(getattr(back, column), getattr(made, column)[order])
    assert sorted(p.name for p in tmp_path.iterdir()) == ["050.mrcs", "050.rawtlt", "050.star"]


def test_other_programs_find_what_they_look_for(tmp_path: Path) -> None:
    write_tilt_series(tmp_path / "050.mrcs", series())
    with mrcfile.open(tmp_path / "050.mrcs") as file:
        assert file.is_image_stack() and file.data.shape == (5, 10, 12) and file.voxel_size.x == pytest.approx(13.48)
        assert float(file.header.dmax) == file.data.max() and mrcfile.validate(tmp_path / "050.mrcs")
    assert (tmp_path / "050.rawtlt").read_text().split() == ["-60", "-30", "0", "30", "60"]
    table = read_blocks(tmp_path / "050.star")["050"]
    first = {column: table[column].iloc[0] for column in table}
    assert first["rlnMicrographName"] == "000001@050.mrcs"
    assert first["rlnTomoYTilt"] == first["rlnTomoNominalStageTiltAngle"] == "-60" and first["rlnTomoXTilt"] == "0"
    assert first["rlnDefocusU"] == first["rlnDefocusV"] == "39000" and first["rlnMicrographPreExposure"] == "12"


def test_a_tilt_series_is_written_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*args: object) -> None:
        raise InputError("a bad name")

    monkeypatch.setattr("tomotif.io.tilt_series.write_blocks", fails)
    with pytest.raises(InputError):
        write_tilt_series(tmp_path / "050.mrcs", series())
    assert not list(tmp_path.iterdir())


def test_a_damaged_tilt_series_is_refused(tmp_path: Path) -> None:
    write_tilt_series(tmp_path / "050.mrcs", series())
    star = (tmp_path / "050.star").read_text()
    (tmp_path / "050.star").write_text(star.replace(star.splitlines()[-3], ""))
    with pytest.raises(InputError, match=r"expected 4 images in .*050\.mrcs .*, got 5"):
        open_tilt_series(tmp_path / "050.mrcs")
    (tmp_path / "050.star").write_text(star.replace("rlnDefocusU", "rlnOther"))
    with pytest.raises(InputError, match=r"expected the columns .*rlnDefocusU"):
        open_tilt_series(tmp_path / "050.mrcs")
    (tmp_path / "050.star").write_text(star)
    (tmp_path / "050.mrcs").unlink()
    with pytest.raises(InputError, match="does not exist"):
        open_tilt_series(tmp_path / "050.mrcs")


# ---------------------------------------------------------------------------------------------------------------- specs


def test_every_preset_is_a_spec_and_help_names_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run("simulate", "--help")
    told = capsys.readouterr().out
    for name in preset_names():
        assert name in told
        expected = estimate(read_spec([name]), count=2)
        assert expected.voxels > 5e6 and 0.3 < expected.memory_gb < 4 and 0.1 < expected.disk_gb < 1
        assert expected.seconds > 5 and sum(expected.particles.values()) > 200
        run("simulate", name, "--count", "2", "--dry-run", "--output", tmp_path / "out")
        table = capsys.readouterr().out
        assert f"{expected.voxels:,}" in table and all(label in table for label in expected.particles)
    assert not (tmp_path / "out").exists()


def test_the_example_in_the_documentation_is_a_spec() -> None:
    page = (Path(__file__).parents[1] / "docs/commands/simulate.md").read_text(encoding="utf-8")
    spec = TomogramSpec.model_validate(yaml.safe_load(page.split("```yaml")[1].split("```")[0]))
    assert spec.membranes[0].crossing == ("5t4o",) and spec.vary["snr"] == (0.02, 0.3)
    assert all(f"`{name}`" in page for name in preset_names())


def test_options_win_over_a_spec_and_what_it_varies(tmp_path: Path) -> None:
    path = str(spec_file(tmp_path, snr=0.3, vary={"exposure": [1, 3], "mtf": [0.4, 0.8]}))
    spec = read_spec([path], {"exposure": 2.0, "counts": [1, 1]})
    assert spec.exposure == 2.0 and spec.counts == (1, 1) and spec.snr == 0.3
    assert spec.vary == {"mtf": (0.4, 0.8)}


def test_what_varies_is_drawn_in_its_range() -> None:
    vary = {"snr": (0.01, 1.0), "occupancy": (0.05, 0.25), "box_px": (16, 18)}
    spec = TomogramSpec(structures=("1bxn",), vary=vary)
    rng = np.random.default_rng(0)
    drawn = [spec.draw(rng) for _ in range(300)]
    for name, (low, high) in vary.items():
        values = np.array([row[name] for row in drawn])
        assert low <= values.min() < low + 0.1 * (high - low) and high - 0.1 * (high - low) < values.max() <= high
    assert {row["box_px"] for row in drawn} == {16, 17, 18}
    assert np.mean([math.log10(row["snr"]) for row in drawn]) == pytest.approx(-1, abs=0.1)  # uniform logarithm
    assert spec.settings(drawn[0]).snr == drawn[0]["snr"]
    assert spec.middle().snr == pytest.approx(0.1)


@pytest.mark.parametrize(
    ("vary", "said"),
    [
        ({"snrr": (0.1, 0.2)}, "expected a setting that is a number to vary, got 'snrr'"),
        ({"shape": (32, 64)}, "got 'shape'"),
        ({"ctf": (0, 1)}, "got 'ctf'"),
        ({"snr": (0.3, 0.1)}, "low <= high to vary snr in, got 0.3 to 0.1"),
        ({"occupancy": (0.1, 1.5)}, "vary occupancy: Input should be less than 1, got 1.5"),
        ({"snr": (0.0, 0.1)}, "vary snr: Input should be greater than 0"),
        ({"snr": (0.3, 0.1), "mtf": (0.5, 2.0)}, "vary mtf"),
    ],
)
def test_what_cannot_vary(vary: dict[str, tuple[float, float]], said: str) -> None:
    with pytest.raises(ValidationError) as error:
        TomogramSpec(structures=("1bxn",), vary=vary)
    assert said in str(error.value)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"structures": ["1bxm"]}, ["'1bxm'", "did you mean '1bxn'"]),
        ({"structures": []}, ["structures"]),
        ({"structures": ["1bxn", "1bxn"], "counts": None}, ["'1bxn' twice"]),
        ({"shapee": 3, "snr": -1}, ["spec.yaml", "shapee", "snr", "got -1"]),
        ({"membranes": [{"kind": "vesicel"}]}, ["membranes-0-kind", "vesicle"]),
        ({"counts": None, "occupancy": 0.9}, ["simulated_000: expected room for", "reached"]),
        ({"counts": [1, 2, 3]}, ["one number for each of 2 structures"]),
        ({"structures": ["1s3x"], "counts": [1], "voxel_size": 80}, ["voxels fine enough for 1s3x", "80 Å"]),
        ({"tilt_range": [0, 2]}, ["at least two images", "--tilt-step"]),
        ({"vary": {"snrr": [0.1, 0.2]}}, ["'snrr'"]),
        ({"distractors": ["9xyz"], "distractor_occupancy": 0.1}, ["'9xyz'"]),
    ],
)
def test_a_bad_spec_is_one_line(
    tmp_path: Path, changes: dict[str, Any], words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    line = refused(capsys, tmp_path / "out", "simulate", spec_file(tmp_path, **changes))
    assert all(word in line for word in words), line


def test_files_that_are_no_specs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    assert "does not exist" in refused(capsys, out, "simulate", tmp_path / "none.yaml")
    assert "did you mean 'crowded'" in refused(capsys, out, "simulate", "crowdet")
    assert "one spec" in refused(capsys, out, "simulate", "crowded", "1bxn")
    (tmp_path / "list.yaml").write_text("- 4v5d\n")
    assert "expected settings" in refused(capsys, out, "simulate", tmp_path / "list.yaml")
    (tmp_path / "broken.yaml").write_text("structures: [4v5d\n")
    assert "expected YAML" in refused(capsys, out, "simulate", tmp_path / "broken.yaml")
    assert "--voxel-size" in refused(capsys, out, "simulate", "1bxn", "--voxel-size", "-3")


# ----------------------------------------------------------------------------------------------------------------- runs


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three tomograms in one go."""
    folder = tmp_path_factory.mktemp("whole")
    vary = {"snr": [0.05, 0.5], "exposure": [1, 4]}
    spec = spec_file(folder, vary=vary, gold=[{"count": 1}])
    run("simulate", spec, "--count", "3", "--seed", "5", "--output", folder / "run")
    return folder


def test_a_run_says_what_every_tomogram_drew(whole: Path) -> None:
    results = read_json(whole / "run/run.json")["results"]
    assert results["particles"] == 9 and results["classes"] == {"1bxn": 6, "1s3x": 3}
    truth = read_particles(whole / "run/particles.star")
    tomograms = read_tomograms(whole / "run/tomograms.star")
    for number, made in enumerate(results["tomograms"]):
        assert made["name"] == tomograms[number].name == f"simulated_{number:03d}" and made["seed"] == [5, number]
        assert 0.05 <= made["drawn"]["snr"] <= 0.5 and 1 <= made["drawn"]["exposure"] <= 4
        assert 2 <= made["defocus_um"] <= 6 and made["particles"] == 3 and made["seconds"] > 0
        instances = open_labels(whole / "run" / f"{made['name']}_instances.mrc").data
        assert made["occupancy"] == pytest.approx(np.mean(instances > 0), rel=0.1)  # gold takes some of the room
        mine = truth.of_tomogram(made["name"])
        rubisco = mine["snr"][(mine["class"] == "1bxn").to_numpy()]
        np.testing.assert_allclose(rubisco, made["drawn"]["snr"], rtol=1e-6)
        tilts = open_tilt_series(whole / "run" / f"{made['name']}_tilts.star")
        assert len(tilts) == 41 and tilts.defocus_um[0] == pytest.approx(made["defocus_um"], rel=1e-6)
        assert tilts.exposure.max() == pytest.approx(40 * made["drawn"]["exposure"], rel=1e-6)
    assert len({made["drawn"]["snr"] for made in results["tomograms"]}) == 3
    assert open_labels(whole / "run/simulated_000_classes.mrc").names == {1: "1bxn", 2: "1s3x", 3: "gold"}


def test_a_killed_run_goes_on_to_the_same_bytes_in_several_processes(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = Batch.write

    def killed(self: Batch, made: Any) -> None:
        if made.tomogram.name == "simulated_001":
            raise KeyboardInterrupt
        write(self, made)

    command = ("simulate", whole / "spec.yaml", "--count", "3", "--seed", "5", "--output", tmp_path / "run")
    with monkeypatch.context() as patched:
        patched.setattr(Batch, "write", killed)
        run(*command, code=130)
    assert (tmp_path / "run/parts/simulated_000.json").exists()
    assert read_json(tmp_path / "run/run.json")["status"] == "running"
    first = (tmp_path / "run/simulated_000.mrc").stat().st_mtime_ns
    run(*command, "--processes", "2")
    assert (tmp_path / "run/simulated_000.mrc").stat().st_mtime_ns == first
    assert files_of(tmp_path / "run") == files_of(whole / "run")
    assert read_json(tmp_path / "run/run.json")["status"] == "finished"
    run(*command)  # and is done
    assert (tmp_path / "run/simulated_001.mrc").stat().st_mtime_ns > first


def test_finished_tomograms_outlive_one_that_cannot_be_made(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = spec_file(tmp_path, counts=None, structures=["1bxn"], vary={"occupancy": [0.02, 0.98]}, snr="none")
    spec = read_spec([str(path)])
    draws = {seed: [spec.draw(np.random.default_rng((seed, i)))["occupancy"] for i in range(2)] for seed in range(99)}
    seed = next(seed for seed, (first, second) in draws.items() if first < 0.1 and second > 0.8)
    run("simulate", path, "--count", "2", "--seed", str(seed), "--output", tmp_path / "run", code=2)
    line = capsys.readouterr().err
    assert "simulated_001 (occupancy 0." in line and "expected room for" in line
    assert (tmp_path / "run/parts/simulated_000.json").exists()


@pytest.mark.parametrize(
    ("keep", "kept"),
    [
        ((), []),
        (("density",), ["density.mrc"]),
        (("labels", "noise_free"), ["classes.json", "classes.mrc", "instances.mrc", "noise_free.mrc"]),
    ],
)
def test_only_what_is_asked_for_is_kept(tmp_path: Path, keep: tuple[str, ...], kept: list[str]) -> None:
    run("simulate", spec_file(tmp_path, counts=[1, 1]), "--output", tmp_path / "run", "--keep", *keep)
    found = sorted(p.name.removeprefix("simulated_000_") for p in (tmp_path / "run").glob("simulated_000_*"))
    assert found == kept
    assert len(read_particles(tmp_path / "run/particles.star")) == 2
    if "density" in keep:
        assert open_volume(tmp_path / "run/simulated_000_density.mrc").data.max() > 0.2
    if "noise_free" in keep:
        noisy = open_volume(tmp_path / "run/simulated_000.mrc").data
        assert noisy.std() > 2 * open_volume(tmp_path / "run/simulated_000_noise_free.mrc").data.std()


def test_a_dry_run_counts_what_a_run_makes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = spec_file(tmp_path, counts=None, abundances=[1, 2], occupancy=0.05, distractors=["1ecp"])
    command = ("simulate", path, "--distractor-occupancy", "0.02", "--output", tmp_path / "run")
    run(*command, "--dry-run")
    assert not (tmp_path / "run").exists()
    run(*command)
    expected = estimate(read_spec([str(path)], {"distractor_occupancy": 0.02})).particles
    assert read_json(tmp_path / "run/run.json")["results"]["classes"] == expected
    assert min(expected.values()) > 0 and "distractor" in capsys.readouterr().out


def test_an_empty_specimen_is_a_tomogram_too(tmp_path: Path) -> None:
    run("simulate", spec_file(tmp_path, counts=None, occupancy=0.0), "--count", "2", "--output", tmp_path / "run")
    assert read_json(tmp_path / "run/run.json")["results"]["particles"] == 0
    assert len(read_tomograms(tmp_path / "run/tomograms.star")) == 2
