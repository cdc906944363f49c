"""Subtomogram stacks: MRC volume stacks of float16, memory-mapped beside their table."""

import errno
import os

import mrcfile
import numpy as np
import pytest

from tomotif.core import InputError, MissingWedge, OutputError, Particles, Tomogram, Volume
from tomotif.core.geometry import random_rotations
from tomotif.io.mrc import write_volume
from tomotif.io.stack import create_stack, open_stack, read_subtomograms, write_rows, write_subtomogram_table
from tomotif.io.star import write_particles, write_tomograms

COUNT, BOX = 6, 8
WEDGE = MissingWedge(-50, 42, "x")


@pytest.fixture
def tomogram(tmp_path):
    return Tomogram(
        Volume(np.zeros((20, 30, 40), np.float32), 12.0), "050", MissingWedge(-33, 44), path=tmp_path / "050.mrc"
    )


@pytest.fixture
def boxes():
    return np.random.default_rng(1).normal(size=(COUNT, BOX, BOX, BOX)).astype(np.float16)


@pytest.fixture
def particles():
    rng = np.random.default_rng(2)
    columns = {"class": list("abcabc"), "mean": rng.normal(size=COUNT)}
    return Particles.create("050", rng.uniform(0, 200, (COUNT, 3)), random_rotations(COUNT, rng), columns)


@pytest.fixture
def folder(tmp_path, boxes, particles, tomogram):
    with create_stack(tmp_path / "subtomograms.mrcs", COUNT, BOX, 12.0) as stack:
        stack[:] = boxes
    write_tomograms(tmp_path / "tomograms.star", [tomogram])
    write_subtomogram_table(
        tmp_path / "particles.star", particles, missing_wedge=WEDGE, voxel_size=12.0, tomograms=[tomogram]
    )
    return tmp_path


def test_stack_is_an_mrc_volume_stack_that_others_read(folder, boxes, capsys):
    path = folder / "subtomograms.mrcs"
    assert mrcfile.validate(path), capsys.readouterr().out
    with mrcfile.open(path) as file:
        assert (file.header.mode, file.header.ispg, file.is_volume_stack()) == (12, 401, True)
        np.testing.assert_array_equal(file.data, boxes)
        assert file.voxel_size.z == pytest.approx(12.0)


def test_stack_comes_back_memory_mapped(folder, boxes):
    stack, voxel_size = open_stack(folder / "subtomograms.mrcs")
    assert isinstance(stack, np.memmap)
    assert (stack.dtype, voxel_size) == (np.float16, 12.0)
    np.testing.assert_array_equal(stack, boxes)


@pytest.mark.parametrize("by_folder", [True, False])
def test_subtomograms_round_trip(folder, boxes, particles, by_folder):
    back = read_subtomograms(folder if by_folder else folder / "particles.star")
    assert (len(back), back.box_px, back.voxel_size, back.missing_wedge) == (COUNT, BOX, 12.0, WEDGE)
    assert isinstance(back.stack, np.memmap)
    np.testing.assert_array_equal(back.boxes(slice(2, 4)), boxes[2:4].astype(np.float32))
    np.testing.assert_allclose(back.particles.position, particles.position, atol=1e-5)
    assert back.particles["class"].tolist() == list("abcabc")
    np.testing.assert_array_equal(back.particles["mean"], particles["mean"])


def test_rows_may_be_a_subset_in_any_order(folder, boxes, tomogram):
    some = read_subtomograms(folder).particles.take([4, 0, 4, 2])
    write_particles(folder / "some.star", some, tomograms=[tomogram])
    back = read_subtomograms(folder / "some.star")
    assert back.stack.shape == (4, BOX, BOX, BOX)
    expected = boxes[[4, 0, 4, 2]].astype(np.float32)
    np.testing.assert_array_equal(back.boxes(slice(None)), expected)
    np.testing.assert_array_equal(back.boxes(np.array([3, 1])), expected[[3, 1]])
    np.testing.assert_array_equal(np.asarray(back.stack), boxes[[4, 0, 4, 2]])
    np.testing.assert_array_equal(back.stack[1:3, 2], boxes[[0, 4], 2])


def test_a_table_elsewhere_names_its_stack(folder, tmp_path_factory, boxes, tomogram):
    elsewhere = tmp_path_factory.mktemp("other")
    write_tomograms(elsewhere / "tomograms.star", [tomogram])
    write_particles(elsewhere / "particles.star", read_subtomograms(folder).particles, tomograms=[tomogram])
    back = read_subtomograms(elsewhere, stack=folder / "subtomograms.mrcs")
    assert back.missing_wedge == WEDGE
    np.testing.assert_array_equal(back.boxes(slice(None)), boxes)


class TestTiltRange:
    """Of a table that an extraction of ours did not write."""

    @pytest.fixture
    def plain(self, folder, particles, tomogram):
        write_particles(folder / "particles.star", particles, tomograms=[tomogram])
        return folder

    def test_is_that_of_the_tomograms(self, plain):
        assert read_subtomograms(plain).missing_wedge == MissingWedge(-33, 44)

    def test_may_be_given(self, plain):
        assert read_subtomograms(plain, missing_wedge=MissingWedge(-40, 40)).missing_wedge == MissingWedge(-40, 40)

    def test_is_asked_for_where_nobody_knows(self, plain):
        table = plain / "tomograms.star"
        table.write_text(table.read_text().replace("tomotifTilt", "otherTilt"))
        with pytest.raises(InputError, match=r"expected one tilt range .* got 0; give it"):
            read_subtomograms(plain)


def test_without_box_numbers_row_i_is_box_i(folder, particles, tomogram):
    write_particles(folder / "particles.star", particles, tomograms=[tomogram])
    assert len(read_subtomograms(folder, missing_wedge=WEDGE)) == COUNT
    write_particles(folder / "particles.star", particles.take([0, 1]), tomograms=[tomogram])
    with pytest.raises(InputError, match=r"expected a particle for each of the 6 boxes .* got 2 rows"):
        read_subtomograms(folder, missing_wedge=WEDGE)


def test_box_numbers_beyond_the_stack(folder, particles, tomogram):
    wrong = particles.with_columns(stack_index=np.arange(COUNT) + 1)
    write_subtomogram_table(
        folder / "particles.star", wrong, missing_wedge=WEDGE, voxel_size=12.0, tomograms=[tomogram]
    )
    with pytest.raises(InputError, match=r"expected box numbers from 0 to 5 .* got 1 to 6"):
        read_subtomograms(folder)


def test_missing_stack(folder):
    (folder / "subtomograms.mrcs").unlink()
    with pytest.raises(InputError, match=r"expected the stack of subtomograms, but .* does not exist"):
        read_subtomograms(folder)


def test_missing_table(folder):
    (folder / "particles.star").unlink()
    with pytest.raises(InputError, match="expected the star file of an extraction"):
        read_subtomograms(folder)


def test_truncated_stack(folder):
    os.truncate(folder / "subtomograms.mrcs", 3000)
    with pytest.raises(InputError, match="truncated"):
        read_subtomograms(folder)


def test_a_volume_is_not_a_stack(tmp_path):
    write_volume(tmp_path / "v.mrc", np.ones((8, 8, 8), np.float32), 10.0)
    with pytest.raises(InputError, match="expected an MRC volume stack"):
        open_stack(tmp_path / "v.mrc")


def test_failing_extraction_leaves_no_stack(tmp_path):
    with pytest.raises(RuntimeError), create_stack(tmp_path / "s.mrcs", 10, 8, 10.0) as stack:
        stack[0] = 1
        raise RuntimeError
    assert not list(tmp_path.iterdir())


def test_full_disk_is_known_before_the_first_box(tmp_path, monkeypatch):
    def full(descriptor: int, offset: int, size: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", full)
    with (
        pytest.raises(OutputError, match=r"s\.mrcs: the disk is full: 11,264 bytes needed, [\d,]+ free"),
        create_stack(tmp_path / "s.mrcs", 10, 8, 10.0),
    ):
        pytest.fail("the block must not be entered")
    assert not list(tmp_path.iterdir())


def test_no_boxes(tmp_path):
    with create_stack(tmp_path / "s.mrcs", 0, 8, 10.0) as stack:
        assert stack.shape == (0, 8, 8, 8)


def test_rows_written_to_the_file_show_in_the_map_and_in_memory_alike(tmp_path):
    boxes = np.random.default_rng(7).normal(size=(2, 4, 4, 4)).astype(np.float16)
    in_memory = np.zeros((5, 4, 4, 4), np.float16)
    write_rows(in_memory, np.array([3, 1]), boxes)
    with create_stack(tmp_path / "s.mrcs", 5, 4, 10.0) as mapped:
        write_rows(mapped, np.array([3, 1]), boxes)
        np.testing.assert_array_equal(mapped, in_memory)
    np.testing.assert_array_equal(open_stack(tmp_path / "s.mrcs")[0], in_memory)
    np.testing.assert_array_equal(in_memory[[3, 1]], boxes)
    assert not in_memory[[0, 2, 4]].any()
