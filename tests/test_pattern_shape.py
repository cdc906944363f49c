"""What is measured of a picture is what was drawn, whatever its pose."""

from __future__ import annotations

import numpy as np
import pytest

from tests.pattern_pictures import drawn
from tomotif.core.geometry import random_rotations
from tomotif.ops.pattern_shape import (
    Body,
    describe_picture,
    half_sample_mode,
    likeness,
    object_mask,
    smoothed,
    sphere_radius,
)

TURNS = random_rotations(4, np.random.default_rng(7))


@pytest.mark.parametrize("noise", [0.0, 0.5])
@pytest.mark.parametrize(("kind", "radius"), [("large ball", 120), ("small ball", 40)])
def test_radius_of_a_ball_is_in_angstrom(kind: str, radius: float, noise: float) -> None:
    for voxel_size, box_px in ((20.0, 24), (13.0, 32)):
        shape = describe_picture(drawn(kind, voxel_size=voxel_size, box_px=box_px, noise=noise), voxel_size)
        (only,) = shape.bodies
        assert only.radius == pytest.approx(radius, rel=0.15)
        assert only.volume == pytest.approx(4 / 3 * np.pi * radius**3, rel=0.45)
        assert only.rim == 0 and only.kind == "globule"


@pytest.mark.parametrize("turn", range(len(TURNS)))
def test_numbers_do_not_depend_on_the_pose(turn: int) -> None:
    for kind in ("membrane", "rod", "large ball", "edge"):
        upright, turned = (describe_picture(drawn(kind, r), 20.0) for r in (None, TURNS[turn]))
        assert turned.filling == pytest.approx(upright.filling, abs=0.03)
        assert turned.one_sidedness == pytest.approx(upright.one_sidedness, abs=0.05)
        one, other = upright.bodies[0], turned.bodies[0]
        assert other.axes == pytest.approx(one.axes, rel=0.1)
        assert other.rim == pytest.approx(one.rim, abs=0.04)


def test_sheets_lines_and_balls_have_the_moments_of_geometry() -> None:
    radius = 20 * sphere_radius(24)
    (sheet,) = describe_picture(drawn("membrane", TURNS[0]), 20.0).bodies
    assert sheet.axes[:2] == pytest.approx([radius / 2] * 2, rel=0.1)  # a disc of radius R has R / 2
    assert sheet.planarity > 0.7 and sheet.rim > 0.1 and sheet.kind == "sheet"
    (rod,) = describe_picture(drawn("rod", TURNS[0]), 20.0).bodies
    assert rod.axes[0] == pytest.approx(2 * radius / np.sqrt(12), rel=0.1)  # a line of length L has L / √12
    assert rod.elongation > 0.6 and 0.01 < rod.rim < 0.1 and rod.kind == "filament"
    (ball,) = describe_picture(drawn("large ball"), 20.0).bodies
    assert ball.axes == pytest.approx([120 / np.sqrt(5)] * 3, rel=0.1)  # a ball of radius R has R / √5
    assert ball.elongation + ball.planarity + ball.sphericity == pytest.approx(1)


@pytest.mark.parametrize("noise", [0.0, 0.5])
def test_touching_bodies_are_taken_apart(noise: float) -> None:
    for i, turn in enumerate(TURNS):
        two = describe_picture(drawn("two balls", turn, noise=noise, seed=i), 20.0).bodies
        assert [found.radius for found in two] == pytest.approx([75, 75], rel=0.15)
        mixed = describe_picture(drawn("ball at membrane", turn, noise=noise, seed=i), 20.0).bodies
        assert sorted(found.kind for found in mixed) == ["globule", "sheet"]


def test_both_leaflets_are_one_sheet_at_small_voxels() -> None:
    (sheet,) = describe_picture(drawn("membrane", TURNS[1], voxel_size=8.0, box_px=40), 8.0).bodies
    assert sheet.kind == "sheet"


def test_a_long_globule_that_ends_in_the_box_is_no_filament() -> None:
    axes = Body(volume=1e6, axes=(90.0, 30.0, 30.0), rim=0.0)
    assert axes.kind == "globule" and axes.elongation == pytest.approx(2 / 3)


@pytest.mark.parametrize("seed", range(20))
def test_noise_holds_no_body(seed: int) -> None:
    shape = describe_picture(drawn("noise", noise=1.0, seed=seed), 20.0)
    assert shape.bodies == () and 2 < shape.signal < 4.5 and shape.filling < 1e-3


def test_a_constant_picture_has_no_signal() -> None:
    shape = describe_picture(np.full((24, 24, 24), 3.0, np.float32), 20.0)
    assert (shape.contrast, shape.signal, shape.filling, shape.one_sidedness, shape.bodies) == (0, 0, 0, 0, ())


@pytest.mark.parametrize("shift", [-80.0, 0.0, 80.0])
def test_an_edge_is_one_sided_wherever_it_runs(shift: float) -> None:
    for turn in TURNS:
        assert describe_picture(drawn("edge", turn, noise=0.3, shift=shift), 20.0).one_sidedness > 0.6
    assert describe_picture(drawn("ball at membrane", noise=0.3), 20.0).one_sidedness < 0.3


def test_dense_matter_does_not_move_background_and_noise() -> None:
    for kind in ("noise", "small ball", "large ball", "membrane", "edge"):
        seen = smoothed(drawn(kind, noise=0.5, seed=3) + 5, 20.0)
        assert seen.background == pytest.approx(5.0, abs=0.08), kind
        assert seen.noise == pytest.approx(0.5 * 0.15, rel=0.45), kind  # the Gaussian leaves (4 π)^(-3/4) = 0.15


def test_the_picture_alone_is_in_the_mask() -> None:
    picture = drawn("large ball", noise=0.3) + 2
    mask, background = object_mask(picture, 20.0)
    truth = drawn("large ball") > 0.5
    assert background == pytest.approx(2, abs=0.1)
    assert (mask & truth).sum() / (mask | truth).sum() > 0.8
    assert not object_mask(drawn("noise", noise=1.0), 20.0)[0].any()


def test_mode_and_likeness() -> None:
    assert half_sample_mode(np.sort(np.random.default_rng(0).normal(4, 1, 100_000))) == pytest.approx(4, abs=0.3)
    ball, membrane = drawn("large ball"), drawn("membrane")
    boxes = np.stack([2 * ball + 7, -ball, membrane, 0 * ball])
    assert likeness(boxes, ball, 20.0)[[0, 1, 3]] == pytest.approx([1, -1, 0])
    assert abs(likeness(boxes, ball, 20.0)[2]) < 0.5


def test_a_layer_is_told_where_its_outline_breaks_up() -> None:
    """Averages of membranes are brightest in the middle and lie between unlike sides."""
    rng = np.random.default_rng(0)
    z, y, x = np.mgrid[:24, :24, :24] - 12.0
    height = 0.8 * z + 0.6 * y
    membrane = np.exp(-(height**2) / 2) * (0.5 + np.exp(-(z**2 + y**2 + x**2) / 18)) + 0.15 * (height > 0)
    globule = (z**2 + y**2 + x**2 < 4.5**2).astype(float)
    flat, round_ = (
        describe_picture((one + rng.normal(0, 0.1, one.shape)).astype(np.float32), 20.0).layer
        for one in (membrane, globule)
    )
    assert flat > 0.3 and round_ < 0.1, (flat, round_)
