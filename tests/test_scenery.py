"""The scenery of a simulated cell: membranes, filaments and beads, against geometry and analytic densities."""

from __future__ import annotations

import math
import time

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from scipy.spatial.transform import Rotation
from scipy.stats import chisquare, kstest

from tomotif.core import InputError, Structure
from tomotif.core.geometry import radius_grid
from tomotif.ops.bead import GOLD, ball, ball_profile, blur_deviation
from tomotif.ops.filament import (
    ACTIN_KDA,
    TUBULIN_KDA,
    FilamentPath,
    actin,
    microtubule,
    render_subunits,
    subunit_density,
    worm_like_path,
)
from tomotif.ops.membrane import HEADS, TAILS, bilayer, long_axis, plane, surface_sites, turn_to, vesicle

Z = (1.0, 0.0, 0.0)


def generator(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def slopes(distance: NDArray[np.floating], voxel: float, within: float) -> NDArray[np.floating]:
    """Length of the gradient where the surface is near; the array's rim, with one-sided differences, is left out."""
    inner = (slice(2, -2),) * 3
    length = np.linalg.norm(np.gradient(distance, voxel), axis=0)
    return length[inner][np.abs(distance[inner]) < within]


# membranes


def test_distances_are_distances_near_the_surface() -> None:
    window, vesicles = vesicle(
        (110, 120, 130),
        10.0,
        centre=(550, 600, 650),
        radii=(300, 350, 420),
        rng=generator(),
        rotation=Rotation.random(rng=generator(1)),
    )
    assert vesicles.shape == tuple(s.stop - s.start for s in window)
    length = slopes(vesicles, 10.0, 100)
    assert np.percentile(length, 1) > 0.97 and np.percentile(length, 99) < 1.05
    sheet = plane(
        (60, 90, 90), 10.0, point=(300, 0, 0), normal=(1, 0.2, 0.1), amplitude=40, wavelength=1000, rng=generator()
    )
    length = slopes(sheet, 10.0, 100)
    assert len(length) > 1e5 and np.percentile(length, 1) > 0.98 and np.percentile(length, 99) < 1.02
    assert plane((60, 9, 9), 10.0, point=(300, 0, 0), normal=Z, amplitude=0, wavelength=1000, rng=generator())[
        :, 4, 4
    ] == pytest.approx(np.arange(60) * 10.0 - 300, abs=1e-3)


def test_a_sphere_that_is_larger_than_the_volume() -> None:
    centre, radius = np.array([-900.0, 300.0, 300.0]), 1200.0
    window, distance = vesicle((60, 60, 60), 10.0, centre=centre, radii=(radius,) * 3, rng=generator(), roughness=0)
    assert window[0] == slice(0, 43)  # up to 120 Å above the surface
    where = np.stack(np.meshgrid(*[np.arange(s.start, s.stop) * 10.0 for s in window], indexing="ij"), axis=-1)
    np.testing.assert_allclose(distance, np.linalg.norm(where - centre, axis=-1) - radius, atol=0.05)
    away, nothing = vesicle((60, 60, 60), 10.0, centre=(300, 300, 5000), radii=(300,) * 3, rng=generator())
    assert nothing.size == 0 and np.zeros((60, 60, 60))[away].size == 0


@pytest.mark.parametrize("radii", [(250, 250, 250), (200, 300, 400)])
def test_an_ellipsoid_has_its_volume_and_its_axes(radii: tuple[float, float, float]) -> None:
    turn = Rotation.random(rng=generator(2))
    window, distance = vesicle(
        (110, 110, 110), 10.0, centre=(550, 545, 550), radii=radii, rng=generator(), roughness=0, rotation=turn
    )
    # the corner of the window is nothing special: all of the inside lies in it
    assert min(face.min() for axis in range(3) for face in (distance.take(0, axis), distance.take(-1, axis))) > 80
    volume = np.count_nonzero(distance < 0) * 10.0**3
    assert volume == pytest.approx(4 / 3 * np.pi * np.prod(radii), rel=0.01)
    inside = np.argwhere(distance < 0) * 10.0
    values, vectors = np.linalg.eigh(np.cov(inside.T))
    np.testing.assert_allclose(np.sqrt(5 * values), sorted(radii), rtol=0.01)
    if len(set(radii)) == 3:
        assert abs(vectors[:, 2] @ turn.apply([0, 0, 1])) > 0.999
    corner = np.array([s.start for s in window]) * 10.0
    np.testing.assert_allclose(inside.mean(axis=0) + corner, (550, 545, 550), atol=2)


def test_roughness_and_amplitude_are_what_was_asked_for() -> None:
    got = []
    for seed in range(6):
        window, distance = vesicle(
            (90, 90, 90), 10.0, centre=(450,) * 3, radii=(300,) * 3, rng=generator(seed), roughness=0.08
        )
        sites, _ = surface_sites(distance, 10.0, generator(seed), 3000)
        out = sites + np.array([s.start for s in window]) * 10.0 - 450
        radius = np.linalg.norm(out, axis=1)
        assert radius.mean() == pytest.approx(300, rel=0.03)
        got.append(radius.std() / 300)
    assert np.mean(got) == pytest.approx(0.08, rel=0.15)
    sheets = [
        plane((60, 150, 150), 20.0, point=(600, 0, 0), normal=Z, amplitude=50, wavelength=800, rng=generator(seed))
        for seed in range(4)
    ]
    heights = [
        [np.interp(0, column, np.arange(60) * 20.0) for column in s[:, ::7, ::7].reshape(60, -1).T] for s in sheets
    ]
    assert np.sqrt(np.mean((np.array(heights) - 600) ** 2)) == pytest.approx(50, rel=0.15)


def test_a_cells_boundary_is_quick() -> None:
    took = []
    for _ in range(3):
        begun = time.perf_counter()
        vesicle((100, 256, 256), 12.0, centre=(600, 1500, 3000), radii=(4000, 5000, 3000), rng=generator())
        took.append(time.perf_counter() - begun)
    assert min(took) < 0.8  # about 0.1 s on an idle core


def peaks(profile: NDArray[np.floating]) -> NDArray[np.int64]:
    middle = profile[1:-1]
    return np.flatnonzero((middle > profile[:-2]) & (middle >= profile[2:]) & (middle > 0.01)) + 1


def test_a_bilayer_has_two_layers_of_heads_and_is_blurred_exactly() -> None:
    d = np.arange(-150, 150.01, 0.1)
    fine = bilayer(d, resolution=4.0)
    assert d[peaks(np.maximum(fine, 0.25))] == pytest.approx([-20, 20], abs=0.3)  # the tails between are level
    wide = bilayer(d, resolution=4.0, thickness=36.0)
    assert np.ptp(d[peaks(np.maximum(wide, 0.25))]) == pytest.approx(36, abs=0.5)
    assert fine.max() == pytest.approx(HEADS, abs=0.06) and fine[1500] == pytest.approx(TAILS, abs=1e-3)
    electrons = 2 * HEADS * 3.0 * math.sqrt(2 * math.pi) + TAILS * 30.0
    for resolution in (4.0, 25.0, 60.0):
        profile = bilayer(d, resolution=resolution)
        assert profile.sum() * 0.1 == pytest.approx(electrons, abs=0.01)
        more = math.sqrt(blur_deviation(resolution) ** 2 - blur_deviation(3.0) ** 2)
        blurred = gaussian_filter(bilayer(d, resolution=3.0).astype(np.float64), more / 0.1, truncate=8)
        np.testing.assert_allclose(profile, blurred, atol=2e-4)
    # with tails denser than water there are two lines at 25 Å and one at 60
    assert len(peaks(bilayer(d, resolution=25.0))) == 2
    assert d[peaks(bilayer(d, resolution=60.0))] == pytest.approx([0], abs=0.2)
    # with tails thinner than water the two lines last
    assert len(peaks(bilayer(d, resolution=60.0, heads=0.6, tails=-0.2))) == 2


def test_sites_lie_on_the_surface_uniform_by_area() -> None:
    window, distance = vesicle(
        (70, 70, 70), 10.0, centre=(350, 345, 352), radii=(230,) * 3, rng=generator(), roughness=0
    )
    positions, normals = surface_sites(distance, 10.0, generator(), 8000)
    out = positions + np.array([s.start for s in window]) * 10.0 - (350, 345, 352)
    radius = np.linalg.norm(out, axis=1)
    assert np.abs(radius - 230).max() < 1.0
    assert np.sum(out / radius[:, None] * normals, axis=1).min() > 0.999
    np.testing.assert_allclose(np.linalg.norm(normals, axis=1), 1)
    octants = np.bincount((out > 0) @ [4, 2, 1], minlength=8)
    assert chisquare(octants).pvalue > 1e-3
    for axis in range(3):  # the hat-box theorem: uniform along every axis
        assert kstest(out[:, axis] / 230, "uniform", (-1, 2)).pvalue > 1e-3


def test_sites_on_what_is_not_there() -> None:
    for size in (20, 2):
        positions, normals = surface_sites(np.full((size,) * 3, 500.0), 10.0, generator(), 5)
        assert positions.shape == normals.shape == (0, 3)
    assert len(turn_to(normals, Z, generator())) == 0


def test_structures_are_turned_to_normals_with_a_random_spin() -> None:
    normals = generator(3).standard_normal((4000, 3))
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    normals[0], normals[1] = (0, 0.6, 0.8), (0, -0.6, -0.8)
    axis = np.array([0, 0.6, 0.8])
    turns = turn_to(normals, axis, generator())
    np.testing.assert_allclose(turns.apply(axis), normals, atol=1e-9)
    assert np.linalg.det(turns.as_matrix()) == pytest.approx(1)
    fixed = turn_to(np.tile(axis, (4000, 1)), axis, generator())
    across, other = np.array([1.0, 0, 0]), np.array([0, 0.8, -0.6])
    turned = fixed.apply(across)
    spin = np.arctan2(turned @ other, turned @ across)
    assert kstest(spin, "uniform", (-np.pi, 2 * np.pi)).pvalue > 1e-3


def test_the_long_axis_is_that_of_the_electrons() -> None:
    rng = generator()
    axis = np.array([2.0, -1.0, 0.5]) / np.linalg.norm([2.0, -1.0, 0.5])
    rod = rng.uniform(-100, 100, (4000, 1)) * axis + rng.standard_normal((4000, 3)) * 8
    ring = rng.standard_normal((4000, 3)) * 300  # nearly weightless
    positions = np.concatenate([rod, ring]).astype(np.float32)
    weights = np.repeat([7.0, 1e-6], 4000).astype(np.float32)
    found = long_axis(Structure("rod", positions, weights, np.ones(8000, np.float32), 10.0))
    assert found @ axis > 0.999


# filaments


def test_a_worm_like_chain_has_its_persistence_length() -> None:
    persistence, step = 1000.0, 50.0
    paths = [
        worm_like_path((0, 0, 0), Z, length=1000, persistence_length=persistence, step=step, rng=generator(seed))
        for seed in range(1000)
    ]
    along = np.array([p.frames.apply(Z) for p in paths])
    for apart in (4, 10, 20):
        cosine = np.mean(np.sum(along[:, :-apart] * along[:, apart:], axis=-1))
        assert -apart * step / np.log(cosine) == pytest.approx(persistence, rel=0.1)
    ends = np.array([p.positions[-1] for p in paths])
    expected = 2 * persistence * 1000 * (1 - persistence / 1000 * (1 - math.exp(-1000 / persistence)))
    assert np.mean(np.sum(ends**2, axis=1)) == pytest.approx(expected, rel=0.03)


def test_a_path_starts_where_it_should_and_its_frames_do_not_twist() -> None:
    direction = np.array([1.0, 2.0, -2.0]) / 3
    path = worm_like_path((10, 20, 30), 5 * direction, length=2010, persistence_length=2000, rng=generator())
    np.testing.assert_allclose(path.positions[0], (10, 20, 30))
    np.testing.assert_allclose(path.frames[0].apply(Z), direction, atol=1e-9)
    assert len(path.positions) == len(path.frames) == 42
    arc = np.linalg.norm(np.diff(path.positions, axis=0), axis=1)
    assert arc.sum() == pytest.approx(2010, rel=0.02)
    steps = (path.frames[:-1].inv() * path.frames[1:]).as_rotvec()
    np.testing.assert_allclose(steps[:, 0], 0, atol=1e-9)  # parallel transport: every turn is about an axis across
    assert np.abs(steps[:, 1:]).max() > 0.05
    spins = [
        worm_like_path((0, 0, 0), Z, length=10, persistence_length=1e5, rng=generator(s)).frames[0] for s in range(500)
    ]
    turned = np.array([s.apply([0, 1, 0]) for s in spins])
    assert kstest(np.arctan2(turned[:, 1], turned[:, 2]), "uniform", (-np.pi, 2 * np.pi)).pvalue > 1e-3


def straight(length: float) -> FilamentPath:
    """Along z, from the origin."""
    return FilamentPath(np.array([[0.0, 0, 0], [length, 0, 0]]), Rotation.identity(2))


def right_handed_turns(positions: NDArray[np.floating]) -> NDArray[np.floating]:
    """Turn in degrees about +z from one position to the next, in the right-handed frame xyz."""
    angle = np.degrees(np.arctan2(positions[:, 1], positions[:, 2]))  # from x to y
    return (np.diff(angle) + 180) % 360 - 180


def test_actin_is_a_left_handed_helix_of_13_subunits_in_6_turns() -> None:
    subunits = actin(straight(2000))
    assert len(subunits) == 73
    np.testing.assert_allclose(np.hypot(subunits[:, 1], subunits[:, 2]), 16, atol=1e-9)
    np.testing.assert_allclose(np.diff(subunits[:, 0]), 27.5)
    np.testing.assert_allclose(right_handed_turns(subunits), -166.6)
    strand = right_handed_turns(subunits[::2])
    np.testing.assert_allclose(strand, 26.8)  # right-handed
    assert 180 / strand[0] * 55.0 == pytest.approx(360, rel=0.03)  # Å between crossovers
    assert abs(13 * 166.6 / 360 - 6) < 0.02
    neighbours = np.linalg.norm(subunits[1:] - subunits[:-1], axis=1)
    np.testing.assert_allclose(neighbours, 42.1, atol=0.2)


def test_a_bent_actin_filament_keeps_its_lattice_and_its_hand() -> None:
    path = worm_like_path((0, 0, 0), (1, 1, 0.5), length=3000, persistence_length=1e5, rng=generator())
    subunits = actin(path)
    for apart, expected in ((1, 42.1), (2, 55.5)):
        distance = np.linalg.norm(subunits[apart:] - subunits[:-apart], axis=1)
        np.testing.assert_allclose(distance, expected, atol=1.0)
    # steps along a strand, in xyz: the triple product of a right-handed screw is positive
    steps = np.diff(subunits[::2], axis=0)[:, ::-1]
    assert (np.sum(np.cross(steps[:-2], steps[1:-1]) * steps[2:], axis=1) > 0).all()


def test_a_microtubule_has_13_protofilaments_and_a_left_handed_three_start_helix() -> None:
    monomers = microtubule(straight(4100))
    angle = np.degrees(np.arctan2(monomers[:, 1], monomers[:, 2]))
    columns = np.unique(np.round(angle, 3))
    assert len(columns) == 13
    np.testing.assert_allclose(np.diff(columns), 360 / 13, atol=2e-3)
    np.testing.assert_allclose(np.hypot(monomers[:, 1], monomers[:, 2]), 112)
    heights = [np.sort(monomers[np.abs(angle - c) < 1][:, 0]) for c in columns]
    for column in heights:
        np.testing.assert_allclose(np.diff(column), 41)
    # going once round anticlockwise as seen from the tip, neighbours descend: left-handed, by three monomers a turn
    rises = [
        (after[50] - before[50] + 20.5) % 41 - 20.5
        for before, after in zip(heights, heights[1:] + heights[:1], strict=True)
    ]
    np.testing.assert_allclose(rises, -3 * 41 / 13, atol=1e-6)
    assert len(monomers) == pytest.approx(13 * 4100 / 41, abs=14)


def test_a_rendered_microtubule_is_a_tube_of_25_nm() -> None:
    volume = np.zeros((64, 64, 64), np.float32)
    positions = microtubule(straight(1200)) + np.array([-300.0, 250, 250])
    mask = render_subunits(volume, positions, voxel_size=8.0, mass_kda=TUBULIN_KDA, resolution=15.0)
    across = volume.mean(axis=0)
    y, x = np.indices(across.shape) * 8.0 - 250
    radius = np.hypot(y, x)
    profile = np.array([across[np.abs(radius - r) < 4].mean() for r in range(4, 200, 4)])
    wall = np.arange(4, 200, 4)[profile > profile.max() / 2]
    assert 2 * wall.max() == pytest.approx(260, abs=20) and 2 * wall.min() == pytest.approx(170, abs=30)
    assert profile[0] < 0.01 * profile.max()
    fraction = len(mask) * 8.0**3 / (64 * 8.0 / 41 * 13 * 1.21e3 * TUBULIN_KDA)
    assert 0.85 < fraction < 1.15  # of the volume of the protein


def test_rendered_electrons_are_exact_and_those_outside_do_not_count() -> None:
    rng = generator()
    positions = rng.uniform(120, 360, (3000, 3))
    for voxel, resolution, kda in ((12.0, 25.0, ACTIN_KDA), (10.0, 12.0, TUBULIN_KDA), (6.0, 15.0, 10.0)):
        shape = (math.ceil(480 / voxel),) * 3
        volume = np.zeros(shape, np.float32)
        render_subunits(volume, positions, voxel_size=voxel, mass_kda=kda, resolution=resolution)
        assert volume.sum() * voxel**3 == pytest.approx(536 * kda * 3000, rel=3e-3)
    # the border of a volume only leaves out what lies beyond it
    inner = np.zeros((20, 20, 20), np.float32)
    render_subunits(inner, positions - 120, voxel_size=6.0, mass_kda=10.0, resolution=15.0)
    np.testing.assert_allclose(inner, volume[20:40, 20:40, 20:40], atol=1e-4)
    nothing = subunit_density(np.zeros((0, 3)), (8, 8, 8), voxel_size=6.0, mass_kda=10.0, resolution=15.0)
    assert len(nothing[0]) == len(nothing[1]) == 0


def test_a_subunit_is_a_solid_ball_of_protein_at_the_resolution() -> None:
    volume = np.zeros((40, 40, 40), np.float32)
    volume += 1  # what was there stays
    mask = render_subunits(volume, np.array([[80.0, 80, 80]]), voxel_size=4.0, mass_kda=ACTIN_KDA, resolution=20.0)
    radius = (3 * 1.21e3 * ACTIN_KDA / (4 * np.pi)) ** (1 / 3)
    distance = radius_grid((160, 160, 160))
    solid = gaussian_filter(np.clip(radius + 0.5 - distance, 0, 1).astype(np.float64), blur_deviation(20.0))[
        ::4, ::4, ::4
    ]
    np.testing.assert_allclose(volume - 1, solid * 536 / 1210, atol=2e-3)
    assert set(mask) == set(np.flatnonzero(volume - 1 > 0.5 * 536 / 1210))


def test_thousands_of_subunits_are_quick() -> None:
    volume = np.zeros((128, 256, 256), np.float32)
    positions = generator().uniform(0, 3000, (10_000, 3))
    took = []
    for _ in range(3):
        begun = time.perf_counter()
        render_subunits(volume, positions, voxel_size=12.0, mass_kda=ACTIN_KDA, resolution=25.0)
        took.append(time.perf_counter() - begun)
    assert min(took) < 1.5  # about 0.2 s on an idle core


# beads


def test_a_gold_bead_has_its_volume_its_density_and_its_place() -> None:
    centre = np.array([203.0, 188.0, 211.0])
    window, bead = ball((40, 40, 40), 10.0, centre=centre, radius=50.0, resolution=25.0)
    assert bead.max() == pytest.approx(1, abs=1e-3) and bead.shape == tuple(s.stop - s.start for s in window)
    volume = 4 / 3 * np.pi * 50.0**3
    assert bead.sum() * 10.0**3 == pytest.approx(volume, rel=0.005)
    assert GOLD * bead.sum() * 10.0**3 == pytest.approx(18 * volume, rel=0.005)
    assert np.count_nonzero(bead > 0.5) * 10.0**3 == pytest.approx(volume, rel=0.06)
    place = np.argwhere(bead > -1).T @ bead.ravel() / bead.sum() + [s.start for s in window]
    np.testing.assert_allclose(place * 10.0, centre, atol=0.1)
    _, cut = ball((40, 40, 40), 10.0, centre=(0, 200, 395), radius=50.0, resolution=25.0)
    assert 0.2 * volume < cut.sum() * 10.0**3 < 0.6 * volume
    assert ball((40, 40, 40), 10.0, centre=(0, 200, 900), radius=50.0, resolution=25.0)[1].size == 0


def test_the_balls_edge_is_that_of_a_blurred_ball() -> None:
    solid = np.clip(30.5 - radius_grid((128, 128, 128)), 0, 1).astype(np.float64)
    blurred = gaussian_filter(solid, blur_deviation(18.0), truncate=6)[64, 64, 64:]
    np.testing.assert_allclose(ball_profile(np.arange(64.0), 30.0, 18.0), blurred, atol=2e-3)


# all


def test_same_seed_same_bytes() -> None:
    def everything(seed: int) -> bytes:
        rng = generator(seed)
        _, distance = vesicle((40, 40, 40), 12.0, centre=(240,) * 3, radii=(150, 180, 200), rng=rng)
        sites, normals = surface_sites(distance, 12.0, rng, 20)
        turns = turn_to(normals, Z, rng).as_quat()
        path = worm_like_path((0, 0, 0), Z, length=500, persistence_length=1e5, rng=rng)
        _, values = subunit_density(actin(path), (40, 40, 40), voxel_size=12.0, mass_kda=42.0, resolution=25.0)
        return b"".join(a.tobytes() for a in (bilayer(distance, resolution=25.0), sites, turns, values))

    assert everything(1) == everything(1) != everything(2)


def test_impossible_scenery_is_refused() -> None:
    with pytest.raises(InputError, match="radii above"):
        vesicle((8, 8, 8), 10.0, centre=(0, 0, 0), radii=(100, 0, 100), rng=generator())
    with pytest.raises(InputError, match="wavelength above"):
        plane((8, 8, 8), 10.0, point=(0, 0, 0), normal=Z, amplitude=10, wavelength=0, rng=generator())
    with pytest.raises(InputError, match="thicker than 10 Å, got 5"):
        bilayer(np.zeros(3), resolution=25.0, thickness=5.0)
    with pytest.raises(InputError, match="a fifth of the persistence length, got 100, 50 and 60"):
        worm_like_path((0, 0, 0), Z, length=100, persistence_length=60, step=50, rng=generator())
    with pytest.raises(InputError, match="resolution above 0"):
        ball((8, 8, 8), 10.0, centre=(0, 0, 0), radius=50.0, resolution=0)
