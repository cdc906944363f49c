"""MRC files in and out: every mode, every header that programs write, and every way a file can be bad."""

import errno
import os
import resource
from pathlib import Path

import mrcfile
import numpy as np
import pytest

from tomotif.core import InputError, Labels, MissingWedge, OutputError
from tomotif.io import mrc
from tomotif.io.files import allocate, read_json, replacing, write_json
from tomotif.io.mrc import open_labels, open_tomogram, open_volume, read_header, write_labels, write_volume

SHAPE = (5, 6, 7)
MODES = {"int8": 0, "int16": 1, "float32": 2, "uint16": 6, "float16": 12}


def volume(dtype="float32", shape=SHAPE):
    values = np.random.default_rng(0).normal(scale=20, size=shape)
    return (np.abs(values) if dtype == "uint16" else values).astype(dtype)


def edit(path: Path, byte: int, values: object, dtype: str) -> None:
    """Overwrite a field of the header."""
    raw = np.atleast_1d(np.asarray(values, dtype=dtype)).tobytes()
    with path.open("r+b") as file:
        file.seek(byte)
        file.write(raw)


@pytest.fixture
def good(tmp_path):
    path = tmp_path / "good.mrc"
    write_volume(path, volume(), 13.5)
    return path


class TestRoundTrip:
    @pytest.mark.parametrize(("dtype", "mode"), MODES.items())
    def test_every_mode_comes_back_to_the_bit(self, tmp_path, dtype, mode):
        path, data = tmp_path / "v.mrc", volume(dtype)
        write_volume(path, data, 13.48, origin=(1.0, -2.0, 3.5))
        back = open_volume(path)
        assert read_header(path).mode == mode
        assert back.data.dtype == data.dtype
        assert isinstance(back.data, np.memmap)
        np.testing.assert_array_equal(back.data, data)
        assert back.voxel_size == pytest.approx(13.48, rel=1e-6)
        assert back.origin == (1.0, -2.0, 3.5)
        assert list(tmp_path.iterdir()) == [path]

    @pytest.mark.parametrize("dtype", MODES)
    def test_mrcfile_finds_the_file_valid_and_the_same(self, tmp_path, dtype, capsys):
        path, data = tmp_path / "v.mrc", volume(dtype)
        if dtype == "float16":
            data = data / np.float16(20)  # mrcfile sums the squares in float16
        write_volume(path, data, 10.0)
        assert mrcfile.validate(path), capsys.readouterr().out
        with mrcfile.open(path) as file:
            np.testing.assert_array_equal(file.data, data)
            assert file.voxel_size.x == pytest.approx(10.0)
            assert file.header.dmean == pytest.approx(data.mean(dtype=np.float64), rel=1e-5)
            assert file.header.rms == pytest.approx(data.std(dtype=np.float64), rel=1e-5)

    def test_statistics_are_the_same_whatever_the_slabs(self, tmp_path, monkeypatch):
        data = volume(shape=(17, 8, 8))
        monkeypatch.setattr(mrc, "_SLAB_VOXELS", 3 * data[0].size)
        write_volume(tmp_path / "v.mrc", data, 10.0)
        with mrcfile.open(tmp_path / "v.mrc") as file:
            np.testing.assert_array_equal(file.data, data)
            assert file.header.dmin == data.min()
            assert file.header.rms == pytest.approx(data.std(dtype=np.float64), rel=1e-6)

    def test_a_view_with_strides_is_written_as_it_looks(self, tmp_path):
        data = volume(shape=(8, 9, 10))[::2, ::-1, 1:].transpose(2, 0, 1)
        write_volume(tmp_path / "v.mrc", data, 10.0)
        np.testing.assert_array_equal(open_volume(tmp_path / "v.mrc").data, data)

    @pytest.mark.parametrize("dtype", ["float64", "int32", "bool", "complex64"])
    def test_other_types_are_refused(self, tmp_path, dtype):
        with pytest.raises(TypeError, match="expected values of type int8, int16, float32"):
            write_volume(tmp_path / "v.mrc", volume().astype(dtype), 10.0)
        assert not list(tmp_path.iterdir())

    def test_labels_with_names(self, tmp_path):
        labels = Labels(np.arange(120).reshape(4, 5, 6), 10.0, {0: "background", 3: "70S ribosome"})
        write_labels(tmp_path / "l.mrc", labels)
        back = open_labels(tmp_path / "l.mrc")
        np.testing.assert_array_equal(back.data, labels.data)
        assert (back.voxel_size, back.names, read_header(tmp_path / "l.mrc").mode) == (10.0, labels.names, 0)

    def test_many_instances_need_sixteen_bits_and_no_names(self, tmp_path):
        write_labels(tmp_path / "l.mrc", Labels(np.full((2, 2, 2), 300), 10.0, {1: "old"}))
        write_labels(tmp_path / "l.mrc", Labels(np.full((2, 2, 2), 300), 10.0))
        back = open_labels(tmp_path / "l.mrc")
        assert (int(back.data.max()), dict(back.names), read_header(tmp_path / "l.mrc").mode) == (300, {}, 6)
        with pytest.raises(ValueError, match="0 to 65535"):
            write_labels(tmp_path / "l.mrc", Labels(np.full((2, 2, 2), 70_000), 10.0))


class TestHeaders:
    def test_big_endian(self, tmp_path):
        data = volume()
        with mrcfile.new(tmp_path / "v.mrc") as file:
            file.set_data(data.astype(">f4"))
            file.voxel_size = 8.0
        np.testing.assert_array_equal(open_volume(tmp_path / "v.mrc").data, data)

    def test_extended_header_is_skipped(self, tmp_path):
        with mrcfile.new(tmp_path / "v.mrc") as file:
            file.set_data(volume())
            file.set_extended_header(np.zeros(200, dtype="V2"))
            file.voxel_size = 8.0
        np.testing.assert_array_equal(open_volume(tmp_path / "v.mrc").data, volume())

    def test_unsigned_bytes_of_imod(self, tmp_path):
        path = tmp_path / "v.mrc"
        write_volume(path, np.array([[[-1, 0, 1]]], dtype=np.int8), 10.0)
        assert open_volume(path).data.tolist() == [[[-1, 0, 1]]]
        edit(path, 152, [1146047817, 0], "<i4")
        assert open_volume(path).data.tolist() == [[[255, 0, 1]]]
        edit(path, 152, [1146047817, 1], "<i4")
        assert open_volume(path).data.tolist() == [[[-1, 0, 1]]]

    def test_origin_else_start_times_voxel_size(self, good):
        edit(good, 16, [7, 8, -9], "<i4")  # columns, rows, sections
        assert open_volume(good).origin == pytest.approx((-9 * 13.5, 8 * 13.5, 7 * 13.5))
        edit(good, 196, [1.0, 2.0, 3.0], "<f4")
        assert open_volume(good).origin == (3.0, 2.0, 1.0)

    def test_voxel_size_counts_sampling_not_size(self, good):
        edit(good, 28, [14, 12, 10], "<i4")
        assert open_volume(good).voxel_size == pytest.approx(13.5 / 2)

    def test_given_voxel_size_wins(self, good):
        assert open_volume(good, voxel_size=7.0).voxel_size == 7.0

    def test_small_anisotropy_is_averaged(self, good):
        edit(good, 40, [7 * 10.0, 6 * 10.004, 5 * 10.002], "<f4")
        assert open_volume(good).voxel_size == pytest.approx(10.002, abs=1e-4)

    def test_tomogram_carries_the_facts(self, good):
        tomogram = open_tomogram(good, missing_wedge=MissingWedge(-50, 40), contrast="bright")
        assert (tomogram.name, tomogram.path, tomogram.shape) == ("good", good, SHAPE)
        assert (tomogram.missing_wedge.tilt_max, tomogram.sign) == (40, 1.0)
        assert open_tomogram(good, name="050").name == "050"


class TestBadInput:
    def test_missing(self, tmp_path):
        with pytest.raises(InputError, match=r"none\.mrc does not exist"):
            open_volume(tmp_path / "none.mrc")

    def test_folder(self, tmp_path):
        with pytest.raises(InputError, match="is a folder"):
            open_volume(tmp_path)

    def test_not_an_mrc(self, tmp_path):
        (tmp_path / "v.mrc").write_bytes(b"x" * 5000)
        with pytest.raises(InputError, match=r"expected an MRC file .* has b'xxxx' there"):
            open_volume(tmp_path / "v.mrc")

    def test_too_short_for_a_header(self, tmp_path):
        (tmp_path / "v.mrc").write_bytes(b"MAP ")
        with pytest.raises(InputError, match="has 4 bytes in all"):
            open_volume(tmp_path / "v.mrc")

    def test_bad_machine_stamp(self, good):
        edit(good, 212, [1, 2, 3, 4], "u1")
        with pytest.raises(InputError, match=r"machine stamp.*01020304"):
            open_volume(good)

    def test_truncated(self, good):
        os.truncate(good, 1024 + 100)
        with pytest.raises(InputError, match=r"expected 1,864 bytes .*has 1,124 bytes; the file is truncated"):
            open_volume(good)

    @pytest.mark.parametrize("mode", [3, 4, 101])
    def test_unsupported_mode(self, good, mode):
        edit(good, 12, mode, "<i4")
        with pytest.raises(InputError, match=rf"expected MRC mode 0, 1, 2, 6 or 12, but .* has mode {mode}"):
            open_volume(good)

    @pytest.mark.parametrize("edge", [0.0, 1.0])
    def test_unknown_voxel_size(self, good, edge):
        edit(good, 40, [7 * edge, 6 * edge, 5 * edge], "<f4")
        with pytest.raises(InputError, match=rf"got {edge:g} Å, which means unknown; give --voxel-size"):
            open_volume(good)
        assert open_volume(good, voxel_size=10.0).voxel_size == 10.0

    def test_anisotropic(self, good):
        edit(good, 40, [7 * 10.0, 6 * 10.0, 5 * 10.03], "<f4")
        with pytest.raises(InputError, match=r"expected cubic voxels .* has 10\.0300 × 10\.0000 × 10\.0000 Å"):
            open_volume(good)

    def test_permuted_axes(self, good):
        edit(good, 64, [3, 2, 1], "<i4")
        with pytest.raises(InputError, match=r"axes \(3, 2, 1\); transpose it"):
            open_volume(good)

    def test_negative_size(self, good):
        edit(good, 0, -7, "<i4")
        with pytest.raises(InputError, match="expected the size of a volume"):
            open_volume(good)

    @pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
    def test_not_finite(self, tmp_path, monkeypatch, value):
        data = volume()
        data[4, 2, 3] = value
        write_volume(tmp_path / "v.mrc", data, 10.0)
        monkeypatch.setattr(mrc, "_SLAB_VOXELS", 2 * data[0].size)
        with pytest.raises(InputError, match=rf"got {value} at voxel \(4, 2, 3\) \(zyx\)"):
            open_tomogram(tmp_path / "v.mrc")
        assert open_tomogram(tmp_path / "v.mrc", check=False).shape == SHAPE

    @pytest.mark.parametrize("dtype", MODES)
    def test_constant(self, tmp_path, dtype):
        write_volume(tmp_path / "v.mrc", np.full(SHAPE, 3, dtype), 10.0)
        with pytest.raises(InputError, match=r"every voxel of .*v\.mrc is 3"):
            open_tomogram(tmp_path / "v.mrc")

    def test_stack_is_not_a_volume(self, tmp_path):
        with mrcfile.new(tmp_path / "s.mrc") as file:
            file.set_data(np.ones((3, 4, 4, 4), np.float32))
            file.voxel_size = 8.0
        with pytest.raises(InputError, match="is a stack of 3 volumes"):
            open_volume(tmp_path / "s.mrc")

    def test_labels_must_be_integers(self, good):
        with pytest.raises(InputError, match="expected integer labels"):
            open_labels(good)


class TestWholeOrNotAtAll:
    def test_an_error_inside_leaves_the_old_file(self, tmp_path):
        path = tmp_path / "a.json"
        write_json(path, {"a": 1})
        with pytest.raises(RuntimeError), replacing(path) as temporary:
            temporary.write_text("half")
            raise RuntimeError
        assert read_json(path) == {"a": 1}
        assert list(tmp_path.iterdir()) == [path]

    def test_json_refuses_nan_and_leaves_nothing(self, tmp_path):
        with pytest.raises(ValueError, match="JSON"):
            write_json(tmp_path / "a.json", float("nan"))
        assert not list(tmp_path.iterdir())

    def test_damaged_json(self, tmp_path):
        (tmp_path / "a.json").write_text("{")
        with pytest.raises(InputError, match="expected JSON in"):
            read_json(tmp_path / "a.json")

    def test_folder_must_exist(self, tmp_path):
        with pytest.raises(OutputError, match="create it first"):
            write_volume(tmp_path / "no" / "v.mrc", volume(), 10.0)

    def test_a_folder_is_not_a_file_name(self, tmp_path):
        with pytest.raises(OutputError, match="is a folder"):
            write_volume(tmp_path, volume(), 10.0)

    def test_full_disk_says_what_is_needed_and_free(self, tmp_path, monkeypatch):
        def full(descriptor: int, offset: int, size: int) -> None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        monkeypatch.setattr(os, "posix_fallocate", full)
        with pytest.raises(
            OutputError, match=r"cannot write v\.mrc: the disk is full: 1,864 bytes needed, [\d,]+ free"
        ):
            write_volume(tmp_path / "v.mrc", volume(), 10.0)
        assert not list(tmp_path.iterdir())

    def test_real_limit_on_file_size(self, tmp_path):
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
        try:
            with pytest.raises(OutputError, match=r"exceed the allowed file size: 100,000 bytes needed"):
                allocate(tmp_path / "v.mrc", 100_000)
            with pytest.raises(OutputError, match="exceed the allowed file size"):
                write_json(tmp_path / "a.json", "x" * 100_000)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert not list(tmp_path.iterdir())

    @pytest.mark.parametrize("code", [errno.EROFS, errno.EACCES])
    def test_read_only_place(self, tmp_path, monkeypatch, code):
        def refuse(self: Path, *args: object, **kwargs: object) -> None:
            raise OSError(code, os.strerror(code))

        monkeypatch.setattr(Path, "open", refuse)
        with pytest.raises(OutputError, match=r"cannot write v\.mrc: (the disk is read-only|no permission)"):
            write_volume(tmp_path / "v.mrc", volume(), 10.0)

    def test_allocated_blocks_are_there(self, tmp_path):
        allocate(tmp_path / "v.mrc", 1_000_000)
        assert (tmp_path / "v.mrc").stat().st_size == 1_000_000
        assert (tmp_path / "v.mrc").stat().st_blocks * 512 >= 1_000_000
        allocate(tmp_path / "empty", 0)
        assert (tmp_path / "empty").stat().st_size == 0
