"""`tomotif doctor`: the verdict on files, the guesses of contrast and tilt range, and what it prints."""

import os
import shutil
from importlib.resources import files
from pathlib import Path

import mrcfile
import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from tomotif.cli import app
from tomotif.cli.doctor import cpu_features, environment
from tomotif.core import MissingWedge
from tomotif.io.inspect import angular_power, guess_contrast, guess_missing_wedge, inspect, statistics
from tomotif.io.mrc import open_volume, write_volume
from tomotif.io.stack import create_stack

STAR = Path(__file__).parent / "data" / "star"


def measured(volume: np.ndarray, wedge: MissingWedge) -> np.ndarray:
    """What a tilt series measures of a volume."""
    spectrum = np.fft.rfftn(volume) * wedge.mask(volume.shape)
    return np.fft.irfftn(spectrum, volume.shape, axes=(0, 1, 2)).astype(np.float32)


def blobs(snr: float, seed: int = 0) -> np.ndarray:
    """Bright balls of about 6 voxels radius in noise, seen through the missing wedge of ±60°."""
    rng = np.random.default_rng(seed)
    points = np.zeros((96, 128, 128), np.float32)
    points.flat[rng.choice(points.size, 90, replace=False)] = 1
    signal = gaussian_filter(points, 3.0)
    signal = (signal - signal.mean()) / signal.std() * np.sqrt(snr)
    return measured(signal + rng.normal(size=signal.shape), MissingWedge(-60, 60))


@pytest.fixture(scope="module")
def noise():
    return np.random.default_rng(0).normal(size=(112, 112, 112))


class TestTiltRange:
    @pytest.mark.parametrize(
        "wedge",
        [
            MissingWedge(-60, 60),
            MissingWedge(-50, 50),
            MissingWedge(-40, 40),
            MissingWedge(-60, 40),
            MissingWedge(-60, 60, "x"),
            MissingWedge(-45, 66, "x"),
        ],
    )
    @pytest.mark.parametrize("shape", [(64, 64, 64), (64, 80, 100), (100, 100, 100)])
    def test_of_noise_is_found_within_two_degrees(self, noise, wedge, shape):
        volume = measured(noise, wedge)[tuple(slice(0, n) for n in shape)]
        found = guess_missing_wedge(volume)
        assert found is not None
        assert found.tilt_axis == wedge.tilt_axis
        assert found.tilt_min == pytest.approx(wedge.tilt_min, abs=2)
        assert found.tilt_max == pytest.approx(wedge.tilt_max, abs=2)

    def test_does_not_depend_on_scale_offset_or_kind_of_number(self, noise):
        volume = measured(noise, MissingWedge(-50, 40))
        coarse = np.clip(np.round(volume * 16), -128, 127).astype(np.int8)
        one, two = guess_missing_wedge(volume), guess_missing_wedge(coarse)
        assert (two.tilt_min, two.tilt_max) == pytest.approx((one.tilt_min, one.tilt_max), abs=0.5)
        assert guess_missing_wedge(volume * 1e4 + 1e5).tilt_min == pytest.approx(one.tilt_min, abs=0.5)

    def test_power_is_flat_inside_and_nothing_outside(self, noise):
        power = angular_power(measured(noise, MissingWedge(-60, 60)).transpose(1, 0, 2))
        angles = np.arange(-89, 90, 2)
        assert power[np.abs(angles) < 55].std() < 0.15 * power.max()
        assert power[np.abs(angles) > 66].max() < 1e-3 * power.max()

    def test_noise_without_a_missing_wedge_has_none(self, noise):
        assert guess_missing_wedge(noise) is None

    def test_a_range_that_was_filled_in_is_no_guess(self, noise):
        assert guess_missing_wedge(measured(noise, MissingWedge(-88, 88))) is None

    def test_too_small_a_volume(self, noise):
        assert guess_missing_wedge(noise[:16, :16, :16]) is None


class TestContrast:
    @pytest.mark.parametrize("snr", [0.02, 0.1, 0.5])
    def test_of_balls_in_noise(self, snr):
        volume = blobs(snr)
        assert guess_contrast(volume) == "bright"
        assert guess_contrast(-volume) == "dark"
        assert guess_contrast(1000 - 3 * volume) == "dark"

    @pytest.mark.parametrize("seed", range(3))
    def test_of_noise_alone_is_unsure(self, seed):
        assert guess_contrast(blobs(0.0, seed)) == "unsure"

    def test_of_a_tiny_or_flat_volume_is_unsure(self):
        assert guess_contrast(np.eye(8)[None].repeat(8, axis=0)) == "unsure"
        assert guess_contrast(np.zeros((80, 80, 80), np.float32)) == "unsure"


@pytest.fixture
def good(tmp_path):
    path = tmp_path / "good.mrc"
    write_volume(path, -blobs(0.1), 13.48, origin=(1, 2, 3))
    return path


class TestVerdict:
    def test_good_volume(self, good):
        found = inspect(good)
        assert (found.is_good, found.problems, found.kind) == (True, (), "MRC volume")
        assert found.facts["mode"] == "2 (float32)"
        assert found.facts["shape"] == "96 × 128 × 128 voxels (zyx)"
        assert found.facts["voxel size"] == "13.48 Å"
        assert found.facts["origin"] == "1 2 3 Å (zyx)"
        assert found.contrast == "dark"
        assert found.missing_wedge.tilt_max == pytest.approx(60, abs=2)
        assert found.facts["tilt range"].startswith("about -60° to 60°, tilt axis y")

    def test_real_tomogram(self):
        """M. pneumoniae, EMPIAR-10499: ±60°, dense matter dark."""
        path = files("tomotif") / "resources" / "mpneumoniae_20A.mrc"
        found = inspect(Path(str(path)))
        assert found.is_good
        assert found.contrast == "dark"
        assert found.missing_wedge.tilt_axis == "y"
        assert found.missing_wedge.tilt_min == pytest.approx(-60, abs=5)
        assert found.missing_wedge.tilt_max == pytest.approx(60, abs=5)

    def test_statistics_leave_out_what_is_not_finite(self):
        data = np.random.default_rng(0).normal(size=(4, 5, 6)).astype(np.float32)
        data[0, 0, :3] = np.nan, np.inf, -np.inf
        good = data[np.isfinite(data)].astype(np.float64)
        found = statistics(data)
        assert (found.not_finite, found.minimum, found.maximum) == (3, good.min(), good.max())
        assert (found.mean, found.deviation) == pytest.approx((good.mean(), good.std()))

    def test_nan(self, good):
        data = np.array(open_volume(good).data)
        data[3, 4, 5:7] = np.nan
        write_volume(good, data, 13.48)
        found = inspect(good)
        assert found.problems == ("2 voxels are NaN or infinite; mask or interpolate them",)
        assert found.facts["not finite"] == "2 of 1,572,864 voxels"

    def test_only_nan(self, tmp_path):
        write_volume(tmp_path / "v.mrc", np.full((3, 4, 5), np.nan, np.float32), 10.0)
        assert inspect(tmp_path / "v.mrc").problems[0].startswith("60 voxels are NaN")

    def test_constant(self, tmp_path):
        write_volume(tmp_path / "v.mrc", np.full((3, 4, 5), 7, np.int16), 10.0)
        assert inspect(tmp_path / "v.mrc").problems == ("every voxel is 7; there is nothing to find",)

    def test_truncated(self, good):
        os.truncate(good, 5000)
        found = inspect(good)
        assert "expected 6,292,480 bytes" in found.problems[0]
        assert "has 5,000 bytes; the file is truncated" in found.problems[0]
        assert found.facts["voxel size"] == "13.48 Å"

    def test_unknown_voxel_size_is_said_but_no_problem(self, tmp_path):
        write_volume(tmp_path / "v.mrc", blobs(0.1), 1.0)
        found = inspect(tmp_path / "v.mrc")
        assert found.is_good
        assert found.facts["voxel size"] == "unknown, give --voxel-size"

    def test_anisotropic(self, tmp_path):
        with mrcfile.new(tmp_path / "v.mrc") as file:
            file.set_data(blobs(0.1))
            file.voxel_size = (10.0, 10.0, 12.0)
        assert "voxels are not cubic: 12.0000 × 10.0000 × 10.0000 Å" in inspect(tmp_path / "v.mrc").problems[0]

    def test_unsupported_mode(self, tmp_path):
        with mrcfile.new(tmp_path / "v.mrc") as file:
            file.set_data(np.ones((3, 4, 5), np.complex64))
        found = inspect(tmp_path / "v.mrc")
        assert found.facts["mode"] == "4 (not supported)"
        assert "has mode 4" in found.problems[0]

    def test_stack(self, tmp_path):
        with create_stack(tmp_path / "s.mrcs", 3, 8, 10.0) as stack:
            stack[:] = np.random.default_rng(0).normal(size=stack.shape)
        found = inspect(tmp_path / "s.mrcs")
        assert (found.is_good, found.kind) == (True, "MRC volume stack")
        assert found.facts["shape"] == "3 boxes of 8 × 8 × 8 voxels (zyx)"

    @pytest.mark.parametrize("name", ["none.mrc", "none.star", ""])
    def test_nothing_there(self, tmp_path, name):
        assert not inspect(tmp_path / name).is_good

    @pytest.mark.parametrize(
        ("name", "rows", "kind", "version"),
        [
            ("relion_3.0", "3 particles", "star file of particles", "RELION 3.0 or older"),
            ("relion_3.1_optics", "3 particles", "star file of particles", "RELION 3.1"),
            ("relion_4.0", "45 particles", "star file of particles", "RELION 4"),
            ("relion_5_class3d", "10 particles", "star file of particles", "RELION 5"),
            ("relion_5_tomograms", "10 tomograms", "star file of tomograms", "RELION 5"),
            ("warp_2d", "6 particles", "star file of particles", "RELION 5"),
        ],
    )
    def test_star_files(self, name, rows, kind, version):
        found = inspect(STAR / f"{name}.star")
        assert (found.problems, found.facts["rows"], found.kind) == ((), rows, kind)
        assert found.facts["written by"].startswith(version)

    def test_star_file_of_something_else(self, tmp_path):
        (tmp_path / "p.star").write_text("data_x\n\nloop_\n_rlnMicrographName #1\na.mrc\n")
        found = inspect(tmp_path / "p.star")
        assert "neither particles (rlnCenteredCoordinateXAngst" in found.problems[0]
        assert found.facts["columns"] == "rlnMicrographName"

    def test_star_file_without_tomogram_names(self, tmp_path):
        (tmp_path / "p.star").write_text("data_\n\nloop_\n_rlnCoordinateX\n_rlnCoordinateY\n_rlnCoordinateZ\n1 2 3\n")
        assert "expected a column rlnTomoName or rlnMicrographName" in inspect(tmp_path / "p.star").problems[0]


class TestCommand:
    def test_environment(self):
        found = environment()
        assert f"numpy {np.__version__}" in found["versions"]
        assert set(cpu_features()) == {"AVX2", "AVX-512", "VNNI", "BF16", "AMX"}
        assert list(found) == ["versions", "cpu", "cpu features", "gpu", "threads", "memory"]
        assert all(found.values())

    def test_good_files_exit_quietly(self, good, capsys):
        app.main(["doctor", str(good), str(STAR / "relion_4.0.star")])
        lines = capsys.readouterr().out.splitlines()
        assert f"{good}: good, MRC volume" in lines
        assert "  rows           45 particles" in lines

    def test_a_bad_file_exits_with_1_and_the_others_are_still_reported(self, good, tmp_path, capsys):
        shutil.copy(good, tmp_path / "cut.mrc")
        os.truncate(tmp_path / "cut.mrc", 5000)
        with pytest.raises(SystemExit) as stopped:
            app.main(["doctor", str(tmp_path / "cut.mrc"), str(tmp_path / "none.mrc"), str(good)])
        assert stopped.value.code == 1
        lines = capsys.readouterr().out.splitlines()
        assert f"{tmp_path / 'cut.mrc'}: bad, MRC volume" in lines
        assert f"{tmp_path / 'none.mrc'}: bad, unreadable" in lines
        assert f"{good}: good, MRC volume" in lines
        assert sum("the file is truncated" in line for line in lines) == 1
