"""Pose normalisation: turned boxes are where they should be, whole, and alike for one body in many poses."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from tests.test_moments import bodies
from tomotif.core import RESIDUALS, InputError, MissingWedge, Particles, Tomogram, Volume
from tomotif.core.geometry import angle_between, random_rotations
from tomotif.io.environment import peak_memory
from tomotif.io.mrc import open_tomogram, write_volume
from tomotif.io.stack import create_stack, open_stack
from tomotif.tasks.normalise import NormaliseSettings, normalise, place_normalised, turned_boxes, turned_inside

VOXEL = 10.0
SETTINGS = NormaliseSettings(box_px=24, smoothing=15, radius=150)
SPACING = 40


def ramp(shape: tuple[int, int, int] = (40, 44, 48)) -> Tomogram:
    """Density z + 100 y + 10,000 x: it says where it was read, between the voxels too."""
    z, y, x = np.meshgrid(*map(np.arange, shape), indexing="ij")
    return Tomogram(Volume((z + 100 * y + 1e4 * x).astype(np.float32), VOXEL), "t", MissingWedge(), "bright")


def row_of_bodies(
    count: int = 12, noise: float = 0.1, contrast: str = "bright"
) -> tuple[Tomogram, Rotation, np.ndarray]:
    """One body in many poses, their rotations, and their places in voxels."""
    rng = np.random.default_rng(5)
    rotations, shifts = random_rotations(count, rng), rng.uniform(-3, 3, (count, 3))
    drawn = bodies(rotations, shifts, box_px=SPACING)
    data = np.concatenate(list(drawn), axis=2) + noise * rng.standard_normal((SPACING, SPACING, count * SPACING))
    sign = -1 if contrast == "dark" else 1
    middle = np.stack([np.full(count, 20), np.full(count, 20), 20 + SPACING * np.arange(count)], axis=1)
    volume = Volume((sign * data).astype(np.float32), VOXEL)
    return Tomogram(volume, "t", MissingWedge(), contrast), rotations, middle + shifts  # type: ignore[arg-type]


def cut(particles: Particles, tomograms: list[Tomogram], settings: NormaliseSettings) -> tuple[np.ndarray, Particles]:
    """Boxes as float64, and their table."""
    placed = place_normalised(particles, tomograms, settings)
    stack = np.full((len(placed), *(settings.box_px,) * 3), np.nan, np.float16)
    return stack, normalise(placed, tomograms, settings, stack)


def test_a_turned_box_is_read_at_position_plus_rotated_offset() -> None:
    centre = np.array([[20.25, 22.5, 24.75], [19.0, 21.0, 25.0]])
    turn = random_rotations(2, np.random.default_rng(0))
    boxes = turned_boxes(ramp(), centre, turn, 12)
    offset = np.stack(np.meshgrid(*[np.arange(12) - 6] * 3, indexing="ij"), axis=-1)
    for box, place, rotation in zip(boxes, centre, turn, strict=True):
        where = rotation.apply(offset.reshape(-1, 3)) + place
        np.testing.assert_allclose(box.ravel(), where @ [1, 100, 1e4], rtol=1e-5)


def test_bodies_in_many_poses_come_out_alike() -> None:
    tomogram, rotations, places = row_of_bodies()
    start = np.where(np.arange(3) == 2, SPACING * np.arange(12)[:, None] + 20, 20)
    stack, table = cut(Particles.create("t", start * VOXEL), [tomogram], SETTINGS)
    assert len(table) == 12
    relative = rotations.inv() * table.orientation
    assert angle_between(relative, Rotation.concatenate([relative[0]] * 12)).max() < 6
    centre = rotations.inv().apply(table.position / VOXEL - places)
    assert np.linalg.norm(centre - centre.mean(axis=0), axis=1).max() < 0.4
    flat = stack.astype(np.float64).reshape(12, -1)
    plain = np.stack([tomogram.volume.data[8:32, 8:32, x - 12 : x + 12].ravel() for x in start[:, 2]])
    assert np.corrcoef(flat).min() > 0.9 > 0.5 > np.median(np.corrcoef(plain))
    np.testing.assert_allclose(stack.astype(np.float64).std(axis=(1, 2, 3)), 1, atol=1e-2)
    assert all((table[name] == 0).all() for name in RESIDUALS)
    assert (table["moved"] < 60).all() and (table["object_volume"] > 3e5).all()
    assert (table["extent_1"] > table["extent_2"]).all() and (table["extent_2"] > table["extent_3"]).all()


def test_a_dark_tomogram_gives_the_same_boxes() -> None:
    start = Particles.create("t", [[200, 200, 20 * VOXEL + 400 * i] for i in range(12)])
    bright, table = cut(start, [row_of_bodies()[0]], SETTINGS)
    dark, other = cut(start, [row_of_bodies(contrast="dark")[0]], SETTINGS)
    np.testing.assert_array_equal(bright, dark)
    np.testing.assert_allclose(table["mean"], other["mean"], atol=1e-6)


def test_no_corner_is_empty() -> None:
    """Of white noise every voxel of a turned box has the variance that interpolation leaves it, in the corners too."""
    data = np.random.default_rng(1).standard_normal((50, 50, 50)).astype(np.float32)
    tomogram = Tomogram(Volume(data, VOXEL), "t", MissingWedge(), "bright")
    boxes = turned_boxes(tomogram, np.full((200, 3), 25.3), random_rotations(200, np.random.default_rng(2)), 24)
    corners = boxes[:, ::23, ::23, ::23]
    assert corners.std() == pytest.approx(boxes.std(), rel=0.05)


def test_what_leaves_the_tomogram_is_left_out() -> None:
    z = np.array([20, 12, 6, 0]) * VOXEL
    data = np.random.default_rng(1).standard_normal((40, 40, 40)).astype(np.float32)
    tomogram = Tomogram(Volume(data, VOXEL), "t", MissingWedge(), "bright")
    particles = Particles.create("t", np.stack([z, np.full(4, 200.0), np.full(4, 200.0)], axis=1))
    inside = turned_inside(particles.position / VOXEL, particles.orientation, 16, tomogram.shape)
    np.testing.assert_allclose(inside, [1, 1, 14 / 16, 0.5])
    tilted = turned_inside(
        np.array([[12.0, 20, 20]]), Rotation.from_rotvec([[0, 45, 0]], degrees=True), 24, (40, 40, 40)
    )
    assert 0.85 < tilted[0] < 1
    settings = NormaliseSettings(box_px=16, radius=30, smoothing=10, max_padded_fraction=0.3)
    stack, table = cut(particles, [tomogram], settings)
    assert len(table) == len(stack) == 3
    assert table["padded_fraction"].iloc[2] > 0
    with pytest.raises(InputError, match=r"all 1 particles lie outside.*more than 30%"):
        place_normalised(particles.take([3]), [tomogram], settings)


def test_order_of_particles_is_kept_over_several_tomograms() -> None:
    rng = np.random.default_rng(3)
    names = rng.permutation(["a", "b"] * 20)
    sources = [replace(ramp(), name="a"), replace(ramp(), name="b", contrast="dark")]
    centres = rng.uniform(15, 25, (40, 3))
    placed = Particles.create(list(names), centres * VOXEL, random_rotations(40, rng), {"score": np.arange(40.0)})
    calls: list[tuple[int, int]] = []
    stack = np.zeros((40, 8, 8, 8), np.float16)
    settings = NormaliseSettings(box_px=8)
    table = normalise(placed, sources, settings, stack, progress=lambda done, total: calls.append((done, total)))
    np.testing.assert_array_equal(table["score"], np.arange(40))
    np.testing.assert_array_equal(table["stack_index"], np.arange(40))
    assert calls[-1] == (40, 40)
    middle = stack[:, 4, 4, 4] * table["deviation"] + table["mean"]
    np.testing.assert_allclose(middle, (centres @ [1, 100, 1e4]) * np.where(names == "b", -1, 1), rtol=2e-3)


def test_the_same_particles_give_the_same_bytes() -> None:
    tomogram = row_of_bodies()[0]
    start = Particles.create("t", [[200, 200, 20 * VOXEL + 400 * i] for i in range(12)])
    (one, first), (two, second) = (cut(start, [tomogram], SETTINGS) for _ in range(2))
    assert one.tobytes() == two.tobytes() and first.position.tobytes() == second.position.tobytes()


def test_a_particle_without_an_object_stays_where_it_is() -> None:
    flat = Tomogram(Volume(np.full((40, 40, 40), 5, np.float32), VOXEL), "t", MissingWedge(), "bright")
    stack, table = cut(Particles.create("t", [[203, 200, 200]]), [flat], NormaliseSettings(box_px=16))
    assert table.position.tolist() == [[203, 200, 200]] and table["object_volume"][0] == 0
    assert not stack.any() and table["deviation"][0] == 0


def test_through_files_with_memory_that_does_not_grow(tmp_path: Path) -> None:
    write_volume(tmp_path / "t.mrc", np.random.default_rng(0).standard_normal((64, 64, 64), dtype=np.float32), VOXEL)
    source = open_tomogram(tmp_path / "t.mrc", contrast="bright")
    peaks = []
    for count in (100, 1500):
        rng = np.random.default_rng(0)
        placed = Particles.create("t", rng.uniform(300, 340, (count, 3)), random_rotations(count, rng))
        path = tmp_path / f"{count}.mrcs"
        with create_stack(path, count, 32, VOXEL) as stack, peak_memory(0.005) as peak:
            normalise(placed, [source], NormaliseSettings(), stack)
        peaks.append(peak.megabytes)
    assert peaks[1] - peaks[0] < 40  # the boxes are 200 MB as float32
    assert np.abs(open_stack(path)[0].astype(np.float32).std(axis=(1, 2, 3)) - 1).max() < 0.01


@pytest.mark.parametrize(
    ("particles", "tomograms", "options", "message"),
    [
        (Particles.create("t", [[200, 200, 200]]), [ramp()], {"box_px": 64}, "boxes of 64 voxels.*40 × 44 × 48"),
        (Particles.create("t", [[9e4, 0, 0]]), [ramp()], {}, "all 1 particles lie outside"),
        (Particles.create("other", [[200, 200, 200]]), [ramp()], {}, "unknown tomogram 'other'"),
        (Particles.create("t", []), [ramp()], {}, "empty table"),
        (Particles.create("t", [[1, np.nan, 1]]), [ramp()], {}, "finite positions.*row 1"),
        (
            Particles.create(["t", "u"], [[200, 200, 200]] * 2),
            [ramp(), replace(ramp(), name="u", volume=Volume(ramp().volume.data, 12.0))],
            {},
            r"one voxel size, got 10 Å \(t\) and 12 Å \(u\)",
        ),
    ],
)
def test_what_cannot_be_normalised_is_refused(
    particles: Particles, tomograms: list[Tomogram], options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message) as refusal:
        place_normalised(particles, tomograms, NormaliseSettings(**{"box_px": 16, **options}))
    assert "\n" not in str(refusal.value)


def test_a_tomogram_with_nan_is_refused() -> None:
    source = ramp()
    source.volume.data[20, 20, 20] = np.nan
    particles = Particles.create("t", [[200, 200, 200]])
    with pytest.raises(InputError, match=r"finite values in t, got NaN.*\(20, 20, 20\)"):
        place_normalised(particles, [source], NormaliseSettings(box_px=16))
    with pytest.raises(InputError, match="finite values in t"):
        normalise(particles, [source], NormaliseSettings(box_px=16), np.empty((1, 16, 16, 16), np.float16))


def test_a_stack_of_another_shape_is_refused() -> None:
    particles = Particles.create("t", [[200, 200, 200]])
    with pytest.raises(ValueError, match=r"shape \(1, 16, 16, 16\).*\(2, 16, 16, 16\)"):
        normalise(particles, [ramp()], NormaliseSettings(box_px=16), np.empty((2, 16, 16, 16), np.float16))
