"""Damage, camera and noise of an exposure."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch_fourier_filter.dose_weight import critical_exposure as reference

from tomotif.ops.exposure import (
    TiltScheme,
    acquisition_order,
    camera_transfer,
    critical_exposure,
    damage,
    relative_noise,
)
from tomotif.ops.rotate import turn_in_plane

ANGLES = tuple(np.arange(-60.0, 61.0, 3.0))


def test_critical_exposure_is_that_of_the_field() -> None:
    frequency = np.array([1 / 100, 1 / 30, 1 / 10, 1 / 4])
    np.testing.assert_allclose(critical_exposure(frequency), reference(torch.tensor(frequency)).numpy(), rtol=1e-4)
    assert damage(np.array([1 / 30]), 0.0)[0] == 1
    assert damage(np.array([1 / 30]), critical_exposure(np.array([1 / 30])))[0] == pytest.approx(np.exp(-0.5))


@pytest.mark.parametrize("scheme", ["dose_symmetric", "bidirectional", "continuous"])
def test_every_image_has_its_turn(scheme: TiltScheme) -> None:
    order = acquisition_order(ANGLES, scheme)
    assert sorted(order) == list(range(41))
    taken = np.array(ANGLES)[np.argsort(order)]
    if scheme == "dose_symmetric":
        assert np.all(np.diff(np.abs(taken)) >= 0) and taken[0] == 0
    elif scheme == "bidirectional":
        assert taken[0] == 0 and taken[20] == 60 and np.all(np.diff(taken[21:]) == -3)
    else:
        assert np.all(np.diff(taken) == 3)


def test_a_camera_falls_to_its_value_at_nyquist() -> None:
    transfer = camera_transfer(np.array([0.0, 0.25, 0.1]), 2.0, 0.5)
    assert transfer[:2] == pytest.approx([1.0, 0.5])
    assert transfer[2] == pytest.approx(0.5 ** (0.4**2))


def test_fewer_electrons_come_through_tilted_ice() -> None:
    noise = relative_noise([-60, 0, 60], 3100.0)
    assert noise == pytest.approx([np.exp(0.5), 1, np.exp(0.5)])
    assert np.all(np.isfinite(relative_noise([-90, 90], 3100.0)))


def test_images_turn_by_the_angle_about_the_centre() -> None:
    y, x = np.indices((64, 72)) - np.array([32, 36])[:, None, None]
    blob = np.exp(-((y - 3.0) ** 2 + (x - 18.0) ** 2) / (2 * 2.0**2))
    for degrees in (2.0, -5.0):
        turned = turn_in_plane(torch.tensor(blob, dtype=torch.float32)[None], np.array([degrees]))[0].numpy()
        angle = np.arctan2(3, 18) + np.radians(degrees)
        away = np.hypot(3, 18)
        truth = np.exp(-((y - away * np.sin(angle)) ** 2 + (x - away * np.cos(angle)) ** 2) / (2 * 2.0**2))
        assert np.abs(turned - truth).max() < 0.02
