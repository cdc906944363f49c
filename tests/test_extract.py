"""Extraction: the right voxels, residuals, padding, resampling, and clear refusals."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from tomotif.core import RESIDUALS, InputError, MissingWedge, Particles, Tomogram, Volume
from tomotif.io.environment import peak_memory
from tomotif.io.mrc import open_tomogram, write_volume
from tomotif.io.stack import create_stack, open_stack
from tomotif.tasks.extract import ExtractSettings, extract, place_boxes

SHAPE = (40, 48, 56)


def tomogram(name: str = "t", *, contrast: str = "bright", voxel_size: float = 10.0, seed: int = 0) -> Tomogram:
    data = np.random.default_rng(seed).normal(3, 2, SHAPE).astype(np.float32)
    return Tomogram(Volume(data, voxel_size), name, MissingWedge(), contrast)  # type: ignore[arg-type] # it is one


def cut(particles: Particles, tomograms: list[Tomogram], **options: Any) -> tuple[np.ndarray, Particles]:
    """Boxes as float64, and their table."""
    chosen = ExtractSettings(**options)
    count = len(place_boxes(particles, tomograms, chosen))
    stack = np.full((count, *(chosen.box_px,) * 3), np.nan, np.float16)
    table = extract(particles, tomograms, chosen, stack)
    return stack.astype(np.float64), table


def blob(centre: np.ndarray, sigma: float = 3.0) -> Tomogram:
    """A Gaussian blob with its centre at a place in voxels of 10 Å."""
    axes = np.meshgrid(*(np.arange(n) - c for n, c in zip(SHAPE, centre, strict=True)), indexing="ij")
    data = np.exp(-sum(a**2 for a in axes) / (2 * sigma**2)).astype(np.float32)
    return Tomogram(Volume(data, 10.0), "t", MissingWedge(), "bright")


def centroid(box: np.ndarray) -> np.ndarray:
    return np.array(ndimage.center_of_mass(np.clip(box - np.median(box), 0, None)))


def test_boxes_hold_the_voxels_around_their_particle() -> None:
    source = tomogram()
    centres = np.array([[20, 20, 20], [8, 30, 40], [25, 9, 30]])
    stack, kept = cut(Particles.create("t", centres * 10.0), [source], box_px=16)
    for row, (z, y, x) in enumerate(centres):
        expected = source.volume.data[z - 8 : z + 8, y - 8 : y + 8, x - 8 : x + 8]
        restored = stack[row] * kept["deviation"][row] + kept["mean"][row]
        np.testing.assert_allclose(restored, expected, atol=0.01)
    np.testing.assert_allclose(stack.mean((1, 2, 3)), 0, atol=1e-3)
    np.testing.assert_allclose(stack.std((1, 2, 3)), 1, atol=1e-3)
    assert (kept["padded_fraction"] == 0).all()


def test_dark_tomograms_give_bright_boxes() -> None:
    bright, _ = cut(Particles.create("t", [[200, 200, 200]]), [tomogram()], box_px=16)
    dark, kept = cut(Particles.create("t", [[200, 200, 200]]), [tomogram(contrast="dark")], box_px=16)
    np.testing.assert_array_equal(bright, -dark)
    assert kept["mean"][0] == pytest.approx(-3, abs=0.2)  # of the bright densities


@pytest.mark.parametrize("dtype", [np.int8, np.int16, np.uint16, np.float16, ">f4"])
def test_every_number_type_of_a_tomogram(dtype: str) -> None:
    whole = np.random.default_rng(0).integers(0, 100, SHAPE)
    source = replace(tomogram(), volume=Volume(whole.astype(dtype), 10.0))
    stack, kept = cut(Particles.create("t", [[200, 200, 200]]), [source], box_px=8)
    restored = stack[0] * kept["deviation"][0] + kept["mean"][0]
    np.testing.assert_allclose(restored, whole[16:24, 16:24, 16:24], atol=0.1)


@settings(max_examples=30, deadline=None)
@given(where=st.tuples(st.floats(16, 24), st.floats(16, 24), st.floats(16, 24)), box_px=st.sampled_from([19, 20]))
def test_residual_says_where_the_particle_is_in_its_box(where: tuple[float, float, float], box_px: int) -> None:
    place = np.array(where)
    stack, kept = cut(Particles.create("t", place[None] * 10.0), [blob(place, 2.0)], box_px=box_px)
    residual = np.array([kept[name][0] for name in RESIDUALS]) / 10.0
    assert np.abs(residual).max() <= 0.5 + 1e-9
    peak = np.array(np.unravel_index(stack[0].argmax(), stack[0].shape))
    assert np.abs(peak - (box_px // 2 + residual)).max() <= 0.51
    np.testing.assert_allclose(centroid(stack[0] > 0), box_px // 2 + residual, atol=0.2)


def test_sub_voxel_extraction_centres_the_particle() -> None:
    where = np.array([20.3, 21.6, 25.2])
    stack, kept = cut(Particles.create("t", where[None] * 10.0), [blob(where)], box_px=20, sub_voxel=True)
    assert all(abs(kept[name][0]) < 1e-9 for name in RESIDUALS)
    np.testing.assert_allclose(centroid(stack[0]), 10, atol=0.02)


@pytest.mark.parametrize("target", [7.0, 15.0, 20.0])
def test_resampling_keeps_centre_and_size(target: float) -> None:
    where = np.array([20.0, 24.0, 28.0])
    source = blob(where, 3.5)
    stack, _ = cut(Particles.create("t", where[None] * 10.0), [source], box_px=18, output_voxel_size=target)
    axes = np.meshgrid(*[(np.arange(18) - 9) * target / 10.0] * 3, indexing="ij")
    expected = np.exp(-sum(a**2 for a in axes) / (2 * 3.5**2))
    assert np.corrcoef(stack[0].ravel(), expected.ravel())[0, 1] > 0.9995
    np.testing.assert_allclose(centroid(stack[0]), 9, atol=0.05)


def test_the_same_voxel_size_is_no_resampling() -> None:
    particles = Particles.create("t", [[203, 198, 255]])
    plain, _ = cut(particles, [tomogram()], box_px=12)
    asked, _ = cut(particles, [tomogram()], box_px=12, output_voxel_size=10.004)
    np.testing.assert_array_equal(plain, asked)


def test_padding_is_recorded_and_too_much_of_it_is_left_out() -> None:
    positions = np.array([[0, 24, 24], [4, 24, 24], [20, 24, 24], [-30, 24, 24]]) * 10.0
    stack, kept = cut(Particles.create("t", positions), [tomogram()], box_px=16)
    np.testing.assert_allclose(kept["padded_fraction"], [0.5, 0.25, 0.0])
    assert np.ptp(stack[0][:8]) == 0  # outside: one value, that of the mean
    np.testing.assert_allclose(stack[0][:8], 0, atol=1e-3)
    assert stack[0][8:].std() == pytest.approx(1, abs=1e-3)
    strict = ExtractSettings(box_px=16, max_padded_fraction=0.3)
    assert len(place_boxes(Particles.create("t", positions), [tomogram()], strict)) == 2


def test_padding_of_resampled_boxes() -> None:
    particles = Particles.create("t", [[40, 240, 240]])
    stack, kept = cut(particles, [tomogram()], box_px=16, output_voxel_size=20.0)
    assert kept["padded_fraction"][0] == pytest.approx(6 / 16)  # planes at -120, -100, ... -20 Å of 16
    assert stack[0][8:].std() > 0.8
    assert np.abs(stack[0][:4]).max() < 0.3


def test_order_of_particles_is_kept_over_several_tomograms() -> None:
    rng = np.random.default_rng(3)
    names = rng.permutation(["a", "b"] * 150)
    centres = rng.integers(9, 31, (300, 3))
    sources = [tomogram("a", seed=1), tomogram("b", seed=2)]
    particles = Particles.create(list(names), centres * 10.0, columns={"score": np.arange(300.0)})
    calls: list[tuple[int, int]] = []
    stack = np.empty((300, 8, 8, 8), np.float16)
    kept = extract(
        particles, sources, ExtractSettings(box_px=8), stack, progress=lambda done, total: calls.append((done, total))
    )
    np.testing.assert_array_equal(kept["stack_index"], np.arange(300))
    np.testing.assert_array_equal(kept["score"], np.arange(300))
    assert calls[-1] == (300, 300)
    for row in rng.integers(300, size=40):
        z, y, x = centres[row] - 4
        data = sources["ab".index(names[row])].volume.data[z : z + 8, y : y + 8, x : x + 8]
        restored = stack[row].astype(float) * kept["deviation"][row] + kept["mean"][row]
        np.testing.assert_allclose(restored, data, atol=0.02)


def test_a_constant_box_is_zero() -> None:
    source = tomogram()
    source.volume.data[10:30, 10:30, 10:30] = 7
    stack, kept = cut(Particles.create("t", [[200, 200, 200]]), [source], box_px=8)
    assert not stack.any()
    assert kept["deviation"][0] == 0
    assert kept["mean"][0] == 7


def test_through_files_with_memory_that_does_not_grow(tmp_path: Path) -> None:
    write_volume(tmp_path / "t.mrc", tomogram().volume.data, 10.0)
    source = open_tomogram(tmp_path / "t.mrc", contrast="bright")
    peaks = []
    for count in (500, 4000):
        particles = Particles.create("t", np.random.default_rng(0).uniform(170, 230, (count, 3)))
        path = tmp_path / f"{count}.mrcs"
        with create_stack(path, count, 32, 10.0) as stack, peak_memory(0.005) as peak:
            extract(particles, [source], ExtractSettings(), stack)
        peaks.append(peak.megabytes)
    assert peaks[1] - peaks[0] < 60  # the boxes are 500 MB as float32
    boxes, voxel_size = open_stack(path)
    assert voxel_size == 10.0
    assert np.abs(boxes.astype(np.float32).std(axis=(1, 2, 3)) - 1).max() < 0.5


def test_a_killed_extraction_leaves_no_stack(tmp_path: Path) -> None:
    source = tomogram()
    source.volume.data[20, 20, 20] = np.nan
    particles = Particles.create("t", [[200, 200, 200]])
    chosen = ExtractSettings(box_px=16)
    with (
        pytest.raises(InputError, match=r"finite values in t, got NaN.*\(20, 20, 20\)"),
        create_stack(tmp_path / "subtomograms.mrcs", 1, 16, 10.0) as stack,
    ):
        extract(particles, [source], chosen, stack)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("particles", "tomograms", "options", "message"),
    [
        (Particles.create("t", [[200, 200, 200]]), [tomogram()], {"box_px": 64}, "64 voxels of 10 Å.*40 × 48 × 56"),
        (Particles.create("t", [[200, 200, 200]]), [tomogram()], {"output_voxel_size": 20.0}, "64 voxels of t"),
        (Particles.create("t", [[9e4, 0, 0]]), [tomogram()], {}, "all 1 picks lie outside"),
        (Particles.create("other", [[200, 200, 200]]), [tomogram()], {}, "unknown tomogram 'other'"),
        (Particles.create("t", []), [tomogram()], {}, "empty table"),
        (Particles.create("t", [[1, np.nan, 1]]), [tomogram()], {}, "finite positions.*row 1"),
        (
            Particles.create(["t", "u"], [[200, 200, 200]] * 2),
            [tomogram(), tomogram("u", voxel_size=12.0)],
            {"box_px": 16},
            r"one voxel size, got 10 Å \(t\) and 12 Å \(u\)",
        ),
    ],
)
def test_what_cannot_be_cut_is_refused(
    particles: Particles, tomograms: list[Tomogram], options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message) as refusal:
        place_boxes(particles, tomograms, ExtractSettings(**options))
    assert "\n" not in str(refusal.value)


def test_tomograms_of_two_voxel_sizes_resample_to_one() -> None:
    particles = Particles.create(["t", "u"], [[200, 200, 200], [240, 240, 240]])
    stack, kept = cut(particles, [tomogram(), tomogram("u", voxel_size=12.0)], box_px=12, output_voxel_size=15.0)
    np.testing.assert_allclose(stack.std(axis=(1, 2, 3)), 1, atol=1e-3)
    assert len(kept) == 2


def test_a_stack_of_another_shape_is_refused() -> None:
    with pytest.raises(ValueError, match=r"shape \(1, 16, 16, 16\).*\(2, 16, 16, 16\)"):
        extract(
            Particles.create("t", [[200, 200, 200]]),
            [tomogram()],
            ExtractSettings(box_px=16),
            np.empty((2, 16, 16, 16), np.float16),
        )
