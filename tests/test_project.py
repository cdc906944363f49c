"""Projection and back-projection against analytic truth, and against torch-reconstruct-tomogram."""

from __future__ import annotations

from pathlib import Path

import mrcfile
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch_reconstruct_tomogram import reconstruct_subvolume
from torch_tilt_series import TiltSeries

from tomotif.core import InputError, MissingWedge
from tomotif.core.missing_wedge import TiltAxis
from tomotif.ops.project import back_projection_weights, projector, ramp

TILTS = tuple(np.arange(-60.0, 61.0, 3.0))
BLOBS = (
    (-6.3, 4.2, 9.1),
    (5.0, -8.5, -3.2),
    (1.5, 7.7, -9.0),
    (-8.0, -3.0, -1.0),
)


def blobs(shape: tuple[int, int, int], sigma: float = 1.6) -> NDArray[np.float64]:
    """Gaussian blobs at places that no mirror and no rotation maps onto one another."""
    grid = np.indices(shape) - np.array([n // 2 for n in shape])[:, None, None, None]
    total = np.zeros(shape)
    for number, place in enumerate(BLOBS, start=1):
        away = grid - np.array(place)[:, None, None, None]
        total += number * np.exp(-np.sum(away**2, axis=0) / (2 * sigma**2))
    return total


def weighted_back_projection(
    images: NDArray[np.floating], shape: tuple[int, int, int], tilts: tuple[float, ...], axis: TiltAxis = "y"
) -> NDArray[np.float32]:
    """Ramp-filtered images, back-projected."""
    across = 2 if axis == "y" else 1
    spectrum = np.fft.rfft(images, axis=across)
    filtering = ramp(images.shape[across])
    spectrum *= filtering if axis == "y" else filtering[:, None]
    filtered = np.fft.irfft(spectrum, n=images.shape[across], axis=across)
    return projector(shape, tilts, axis).back_project(filtered * back_projection_weights(tilts)[:, None, None])


def correlation(a: NDArray[np.floating], b: NDArray[np.floating]) -> float:
    return float(np.corrcoef(a.ravel(), b.ravel())[0, 1])


@pytest.mark.parametrize("axis", ["x", "y"])
@pytest.mark.parametrize("shape", [(12, 15, 18), (16, 10, 13)])
def test_back_projection_is_the_adjoint_of_projection(axis: TiltAxis, shape: tuple[int, int, int]) -> None:
    rng = np.random.default_rng(0)
    optics = projector(shape, (-60.0, -20.0, 0.0, 33.0, 70.0), axis)
    volume = rng.standard_normal(shape).astype(np.float32)
    images = rng.standard_normal((5, *optics.image_shape)).astype(np.float32)
    forward = np.vdot(optics.project(volume).astype(np.float64), images)
    backward = np.vdot(volume.astype(np.float64), optics.back_project(images))
    assert forward == pytest.approx(backward, rel=1e-4)


@pytest.mark.parametrize("tilt", [0.0, 30.0, -55.0])
def test_projections_are_the_line_integrals(tilt: float) -> None:
    shape, sigma = (40, 36, 48), 1.6
    optics = projector(shape, (tilt, tilt + 1))
    image = optics.project(blobs(shape, sigma))[0]
    t = np.radians(tilt)
    y, x = np.indices(image.shape)
    truth = np.zeros(image.shape)
    for number, (pz, py, px) in enumerate(BLOBS, start=1):
        across = px * np.cos(t) + pz * np.sin(t)  # a positive tilt takes what is high in z to the right
        squared = (y - shape[1] // 2 - py) ** 2 + (x - optics.width // 2 - across) ** 2
        truth += number * np.sqrt(2 * np.pi) * sigma * np.exp(-squared / (2 * sigma**2))
    assert np.abs(image - truth).max() < 0.02 * truth.max()
    assert image.sum() == pytest.approx(truth.sum(), rel=1e-3)


@pytest.mark.parametrize("axis", ["x", "y"])
def test_reconstruction_is_the_object_under_its_missing_wedge(axis: TiltAxis) -> None:
    shape = (64, 64, 64)
    truth = blobs(shape, sigma=2.0)
    made = weighted_back_projection(projector(shape, TILTS, axis).project(truth), shape, TILTS, axis)
    wedge = MissingWedge(-61.5, 61.5, axis).mask(shape)  # the outermost image stands for half a step beyond it
    filtered = np.fft.irfftn(np.fft.rfftn(truth) * wedge, s=shape, axes=(0, 1, 2))
    assert correlation(made, filtered) > 0.98
    assert made.std() == pytest.approx(filtered.std(), rel=0.03)
    mirrored = np.fft.irfftn(np.fft.rfftn(truth) * MissingWedge(-20, 61.5, axis).mask(shape), s=shape, axes=(0, 1, 2))
    assert correlation(made, mirrored) < 0.97


@pytest.mark.parametrize("axis", ["x", "y"])
def test_the_wedge_of_a_lopsided_series_lies_where_missing_wedge_says(axis: TiltAxis) -> None:
    shape, tilts = (64, 64, 64), tuple(np.arange(-20.0, 61.0, 2.0))
    noise = np.random.default_rng(0).standard_normal(shape)
    made = weighted_back_projection(projector(shape, tilts, axis).project(noise), shape, tilts, axis)
    power = np.abs(np.fft.rfftn(made)) ** 2
    inside = MissingWedge(-24, 64, axis).mask(shape)
    assert power[~inside].sum() / power.sum() < 0.05
    other = MissingWedge(-64, 24, axis).mask(shape)
    assert power[~other].sum() / power.sum() > 0.3


def test_tilt_sign_and_hand_are_those_of_torch_reconstruct_tomogram(tmp_path: Path) -> None:
    shape = (32, 32, 32)
    truth = blobs(shape)
    optics = projector(shape, TILTS)
    images = optics.project(truth)
    mrcfile.write(tmp_path / "series.mrc", images)

    def reconstructed(sign: float) -> NDArray[np.float32]:
        series = TiltSeries(
            tilt_angles=torch.tensor(TILTS, dtype=torch.float32) * sign,
            tilt_axis_angle=torch.zeros(len(TILTS)),
            sample_translations=torch.zeros(len(TILTS), 2),
            image_path=tmp_path / "series.mrc",
            pixel_spacing=1.0,
        )
        return reconstruct_subvolume(series, torch.zeros(3), 32, preprocess=False).numpy()

    ours = weighted_back_projection(images, shape, TILTS)
    assert correlation(ours, truth) > 0.8
    same, opposite = correlation(reconstructed(1.0), ours), correlation(reconstructed(-1.0), ours)
    assert same > 0.9
    assert opposite < 0.5
    for axis in range(3):
        assert correlation(np.flip(reconstructed(1.0), axis), ours) < 0.5


def test_wrong_shapes_and_no_tilts_are_refused() -> None:
    optics = projector((8, 9, 10), (-3.0, 3.0))
    with pytest.raises(InputError, match=r"expected a volume of shape \(8, 9, 10\)"):
        optics.project(np.zeros((8, 9, 11)))
    with pytest.raises(InputError, match="expected images of shape"):
        optics.back_project(np.zeros((3, 9, optics.width)))
    with pytest.raises(InputError, match="at least one tilt"):
        projector((8, 9, 10), ())


def test_a_geometry_is_built_once() -> None:
    assert projector((8, 9, 10), (-3.0, 3.0)) is projector((8, 9, 10), (-3.0, 3.0))


def test_uneven_tilts_stand_for_the_angles_between_them() -> None:
    weights = np.degrees(back_projection_weights([10, 0, 2, 6]))
    assert weights.tolist() == pytest.approx([4, 2, 3, 4])
    assert back_projection_weights([5.0]).tolist() == pytest.approx([np.pi])
