"""Extraction: the right voxels, residuals, padding, resampling, and clear refusals."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from tomotif.core import RESIDUALS, InputError, MissingWedge, Particles, Tomogram, Volume
from tomotif.io.environment import peak_memory
from tomotif.io.mrc import open_tomogram, write_volume
from tomotif.io.stack import create_stack
from tomotif.ops.crop import low_pass_to_nyquist, sample_box
from tomotif.tasks.extract import ExtractSettings, extract, plan_extraction

SHAPE = (40, 48, 56)


def tomogram(name: str = "t", *, contrast: str = "bright", voxel_size: float = 10.0, seed: int = 0) -> Tomogram:
    data = np.random.default_rng(seed).normal(3, 2, SHAPE).astype(np.float32)
    return Tomogram(Volume(data, voxel_size), name, MissingWedge(), contrast)  # type: ignore[arg-type]


def cut(particles: Particles, tomograms: list[Tomogram], settings: ExtractSettings) -> tuple[np.ndarray, Particles]:
    plan = plan_extraction(particles, tomograms, settings)
    stack = np.empty((len(plan.particles), *[settings.box_px] * 3), np.float16)
    return stack, extract(plan, tomograms, settings, stack)


def gaussian(centre: np.ndarray, sigma: float = 3.0) -> np.ndarray:
    axes = np.meshgrid(*(np.arange(n) - c for n, c in zip(SHAPE, centre, strict=True)), indexing="ij")
    return np.exp(-sum(a**2 for a in axes) / (2 * sigma**2)).astype(np.float32)


def centroid(box: np.ndarray) -> np.ndarray:
    return np.array(ndimage.center_of_mass(np.clip(box.astype(np.float64) - np.median(box), 0, None)))


def test_boxes_hold_the_voxels_around_their_particle() -> None:
    source = tomogram()
    centres = np.array([[20, 20, 20], [8, 30, 40], [25, 9, 30]])
    stack, kept = cut(Particles.create("t", centres * 10.0), [source], ExtractSettings(box_px=16))
    for row, (z, y, x) in enumerate(centres):
        expected = source.volume.data[z - 8 : z + 8, y - 8 : y + 8, x - 8 : x + 8]
        restored = stack[row].astype(np.float64) * kept["deviation"][row] + kept["mean"][row]
        np.testing.assert_allclose(restored, expected, atol=0.01)
    np.testing.assert_allclose(stack.astype(np.float64).mean((1, 2, 3)), 0, atol=1e-3)
    np.testing.assert_allclose(stack.astype(np.float64).std((1, 2, 3)), 1, atol=1e-3)
    assert (kept["padded_fraction"] == 0).all()


def test_dark_tomograms_give_bright_boxes() -> None:
    bright, _ = cut(Particles.create("t", [[200, 200, 200]]), [tomogram()], ExtractSettings(box_px=16))
    dark, _ = cut(Particles.create("t", [[200, 200, 200]]), [tomogram(contrast="dark")], ExtractSettings(box_px=16))
    np.testing.assert_array_equal(bright, -dark)


def test_residual_says_where_the_particle_is_in_its_box() -> None:
    where = np.array([20.3, 21.6, 25.2])
    source = Tomogram(Volume(gaussian(where), 10.0), "t", MissingWedge(), "bright")
    stack, kept = cut(Particles.create("t", where[None] * 10.0), [source], ExtractSettings(box_px=20))
    residual = np.array([kept[name][0] for name in RESIDUALS]) / 10.0
    np.testing.assert_allclose(residual, [0.3, -0.4, 0.2], atol=1e-9)
    np.testing.assert_allclose(centroid(stack[0]), 10 + residual, atol=0.02)


def test_sub_voxel_extraction_centres_the_particle() -> None:
    where = np.array([20.3, 21.6, 25.2])
    source = Tomogram(Volume(gaussian(where), 10.0), "t", MissingWedge(), "bright")
    settings = ExtractSettings(box_px=20, sub_voxel=True)
    stack, kept = cut(Particles.create("t", where[None] * 10.0), [source], settings)
    assert all(abs(kept[name][0]) < 1e-9 for name in RESIDUALS)
    np.testing.assert_allclose(centroid(stack[0]), 10, atol=0.02)


@pytest.mark.parametrize("target", [7.0, 15.0, 20.0])
def test_resampling_keeps_centre_and_size(target: float) -> None:
    where = np.array([20.0, 24.0, 28.0])
    source = Tomogram(Volume(gaussian(where, 3.5), 10.0), "t", MissingWedge(), "bright")
    settings = ExtractSettings(box_px=18, voxel_size=target)
    stack, _ = cut(Particles.create("t", where[None] * 10.0), [source], settings)
    axes = np.meshgrid(*[(np.arange(18) - 9) * target / 10.0] * 3, indexing="ij")
    expected = np.exp(-sum(a**2 for a in axes) / (2 * 3.5**2))
    assert np.corrcoef(stack[0].ravel().astype(float), expected.ravel())[0, 1] > 0.999
    np.testing.assert_allclose(centroid(stack[0]), 9, atol=0.05)


def test_resampling_takes_away_what_large_voxels_cannot_hold() -> None:
    noise = np.random.default_rng(0).standard_normal((48, 48, 48)).astype(np.float32)
    smooth = low_pass_to_nyquist(noise, 2.0)
    k = np.sqrt(sum(a**2 for a in np.meshgrid(*[np.fft.fftfreq(48)] * 3, indexing="ij")))
    power = np.abs(np.fft.fftn(smooth)) ** 2
    assert power[k > 0.25].sum() < 1e-6 * power.sum()
    np.testing.assert_allclose(np.fft.fftn(smooth)[k < 0.22], np.fft.fftn(noise)[k < 0.22], rtol=1e-3, atol=1e-3)
    box = sample_box(noise, 16, scale=1.0, shift=np.zeros(3))
    np.testing.assert_allclose(box, noise[16:32, 16:32, 16:32], atol=1e-4)


def test_padding_is_recorded_and_too_much_of_it_is_left_out() -> None:
    positions = np.array([[0, 24, 24], [4, 24, 24], [20, 24, 24]]) * 10.0
    stack, kept = cut(Particles.create("t", positions), [tomogram()], ExtractSettings(box_px=16))
    np.testing.assert_allclose(kept["padded_fraction"], [0.5, 0.25, 0.0])
    assert np.ptp(stack[0][:8].astype(float)) == 0  # outside: one value
    assert stack[0][8:].astype(float).std() > 0.5
    strict = ExtractSettings(box_px=16, max_padded_fraction=0.3)
    assert len(plan_extraction(Particles.create("t", positions), [tomogram()], strict).particles) == 2


def test_order_of_particles_is_kept_over_several_tomograms() -> None:
    rng = np.random.default_rng(3)
    names = rng.permutation(["a", "b"] * 150)
    centres = rng.integers(9, 31, (300, 3))
    sources = [tomogram("a", seed=1), tomogram("b", seed=2)]
    stack, kept = cut(Particles.create(list(names), centres * 10.0), sources, ExtractSettings(box_px=8, workers=3))
    np.testing.assert_array_equal(kept["stack_index"], np.arange(300))
    for row in rng.integers(300, size=40):
        z, y, x = centres[row] - 4
        data = sources["ab".index(names[row])].volume.data[z : z + 8, y : y + 8, x : x + 8]
        restored = stack[row].astype(float) * kept["deviation"][row] + kept["mean"][row]
        np.testing.assert_allclose(restored, data, atol=0.02)


def test_same_bytes_whatever_the_threads() -> None:
    particles = Particles.create("t", np.random.default_rng(1).uniform(100, 300, (200, 3)))
    one, _ = cut(particles, [tomogram()], ExtractSettings(box_px=12, workers=1))
    four, _ = cut(particles, [tomogram()], ExtractSettings(box_px=12, workers=4))
    assert one.tobytes() == four.tobytes()


def test_memory_does_not_grow_with_the_number_of_particles(tmp_path: Path) -> None:
    write_volume(tmp_path / "t.mrc", tomogram().volume.data, 10.0)
    source = open_tomogram(tmp_path / "t.mrc")
    peaks = []
    for count in (500, 4000):
        particles = Particles.create("t", np.random.default_rng(0).uniform(170, 230, (count, 3)))
        plan = plan_extraction(particles, [source], ExtractSettings())
        with (
            create_stack(tmp_path / f"{count}.mrcs", count, 32, 10.0) as stack,
            peak_memory(0.005) as peak,
        ):
            extract(plan, [source], ExtractSettings(), stack)
        peaks.append(peak.megabytes)
    assert peaks[1] - peaks[0] < 40  # the boxes are 500 MB as float32


@pytest.mark.parametrize(
    ("particles", "tomograms", "settings", "message"),
    [
        (Particles.create("t", [[200, 200, 200]]), [tomogram()], {"box_px": 64}, "40 × 48 × 56 voxels.*got 64"),
        (Particles.create("t", [[9e4, 0, 0]]), [tomogram()], {}, "all 1 picks lie outside"),
        (Particles.create("other", [[200, 200, 200]]), [tomogram()], {}, "none called 'other'"),
        (Particles.create("t", []), [tomogram()], {}, "empty table"),
        (
            Particles.create(["t", "u"], [[200, 200, 200]] * 2),
            [tomogram(), tomogram("u", voxel_size=12.0)],
            {"box_px": 16},
            "one voxel size, got 10 Å .t. and 12 Å .u.",
        ),
    ],
)
def test_what_cannot_be_cut_is_refused(
    particles: Particles, tomograms: list[Tomogram], settings: dict[str, int], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        plan_extraction(particles, tomograms, ExtractSettings(**settings))


def test_nan_is_refused() -> None:
    source = tomogram()
    source.volume.data[20, 20, 20] = np.nan
    with pytest.raises(InputError, match="NaN or infinity in tomogram 't'"):
        cut(Particles.create("t", [[200, 200, 200]]), [source], ExtractSettings(box_px=16))
