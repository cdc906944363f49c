"""What microscope, tilt series and reconstruction let through, as filters of a box in Fourier space.

A coefficient at angle a in the plane across the tilt axis comes from the images tilted next to a; weighted
back-projection gives it their mean, and the sum of their noise's power. So each coefficient has the radiation damage of
its own images, and the noise's power grows in proportion to the distance from the tilt axis, where images are sparse.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tomotif.ops.exposure import camera_transfer, damage, relative_noise
from tomotif.ops.fourier import Shape, axis_frequencies, frequency_grid, half_space_weights
from tomotif.tasks.simulate.settings import ImagingSettings, TomogramSettings

if TYPE_CHECKING:
    from torch import Tensor


class Microscope(NamedTuple):
    """|CTF| × transfer of the tilts on cubic boxes; the CTF is computed once for every distinct radius on the grid."""

    settings: ImagingSettings
    frequency: NDArray[np.float32]  # (m,) 1/Å
    radii: Tensor  # (w, w, w // 2 + 1): which of the m frequencies each coefficient has
    tilts: Tensor  # (w, w, w // 2 + 1)

    def image(self, boxes: Tensor, defocus_um: NDArray[np.floating]) -> Tensor:
        """Boxes (n, w, w, w) as the microscope and the reconstruction show them, each at its own defocus."""
        import torch

        radial = torch.from_numpy(np.abs(contrast_transfer(self.frequency, self.settings, defocus_um[:, None])))
        spectrum = torch.fft.rfftn(boxes, dim=(1, 2, 3))
        spectrum *= radial.index_select(1, self.radii.flatten()).view(len(boxes), *self.radii.shape) * self.tilts
        return torch.fft.irfftn(spectrum, s=boxes.shape[1:], dim=(1, 2, 3))


def microscope(size: int, settings: ImagingSettings) -> Microscope:
    """The microscope for boxes of this edge."""
    import torch

    shape = size, size, size
    radius = np.round((frequency_grid(shape).astype(np.float64) * size) ** 2).astype(np.int64)
    frequency = np.sqrt(np.arange(radius.max() + 1)) / (size * settings.voxel_size)
    tilts = torch.from_numpy(signal_transfer(shape, settings))
    return Microscope(settings, frequency.astype(np.float32), torch.from_numpy(radius), tilts)


def contrast_transfer(
    frequency: NDArray[np.float32], settings: ImagingSettings, defocus_um: float | NDArray[np.floating]
) -> NDArray[np.float32]:
    """The CTF at frequencies in 1/Å, broadcast with the defocus; 1 where the settings leave it out."""
    from tomotif.ops.ctf import ctf

    if not settings.ctf:
        return np.ones(np.broadcast(frequency, defocus_um).shape, dtype=np.float32)
    return ctf(
        frequency,
        defocus_um,
        voltage_kv=settings.voltage_kv,
        spherical_aberration_mm=settings.spherical_aberration_mm,
        amplitude_contrast=settings.amplitude_contrast,
    )


def signal_transfer(shape: Shape, settings: ImagingSettings) -> NDArray[np.float32]:
    """Amplitude of the signal after radiation damage, camera and wedge, on the grid of ``rfftn``."""
    frequency = frequency_grid(shape, settings.voxel_size)
    transfer = _measured(shape, settings) * camera_transfer(frequency, settings.pixel_size, settings.mtf)
    if settings.exposure == 0:
        return transfer.astype(np.float32)
    below, share = _tilts_of(shape, settings)
    received = settings.received()
    left = damage(frequency, received[below]) * (1 - share) + damage(frequency, received[below + 1]) * share
    return (transfer * left).astype(np.float32)


def noise_transfer(shape: Shape, settings: ImagingSettings) -> NDArray[np.float32]:
    """What white noise of variance 1 is multiplied with on the grid of ``rfftn`` to become the reconstruction's.

    Its variance stays 1.
    """
    across = np.hypot(_across(shape, settings), 0.8 / max(shape))  # a box blurs the axis itself
    below, share = _tilts_of(shape, settings)
    level = relative_noise(settings.angles, thickness_of(settings)) ** 2
    power = _measured(shape, settings) * across * (level[below] * (1 - share) + level[below + 1] * share)
    frequency = frequency_grid(shape, settings.voxel_size)
    power *= image_noise_transfer(frequency, settings) ** 2
    total = np.sum(power * half_space_weights(shape), dtype=np.float64) / math.prod(shape)
    return np.sqrt(power / total).astype(np.float32)


def image_noise_transfer(frequency: NDArray[np.float32], settings: ImagingSettings) -> NDArray[np.float32]:
    """Amplitude of an image's noise at frequencies in 1/Å: camera and colour."""
    camera = camera_transfer(frequency, settings.pixel_size, settings.mtf)
    return (camera * np.exp(-((frequency * settings.noise_decay) ** 2))).astype(np.float32)


def thickness_of(settings: ImagingSettings) -> float:
    """Thickness of the ice in Å; single boxes are taken to come from 1,500 Å."""
    return settings.thickness if isinstance(settings, TomogramSettings) else 1500.0


def _across(shape: Shape, settings: ImagingSettings) -> NDArray[np.float32]:
    """Distance of every coefficient from the tilt axis, in cycles a voxel."""
    kz, ky, kx = axis_frequencies(shape)
    return np.hypot(kz, kx if settings.tilt_axis == "y" else ky)


def _measured(shape: Shape, settings: ImagingSettings) -> NDArray[np.bool_]:
    """Coefficients inside the wedge and no farther from the tilt axis than the images' own frequencies."""
    return settings.missing_wedge.mask(shape) & (_across(shape, settings) <= 0.5)


def _tilts_of(shape: Shape, settings: ImagingSettings) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """For every coefficient the image tilted next below its angle, and the share of the image next above."""
    kz, ky, kx = axis_frequencies(shape)
    along, across = (kx, kz) if settings.tilt_axis == "y" else (ky, -kz)
    angle = np.degrees(np.arctan2(across * np.where(along < 0, -1.0, 1.0), np.abs(along)))
    angles = np.asarray(settings.angles)
    place = np.interp(np.broadcast_to(angle, (shape[0], shape[1], shape[2] // 2 + 1)), angles, np.arange(len(angles)))
    below = np.minimum(place.astype(np.int64), len(angles) - 2)
    return below, (place - below).astype(np.float32)


def middle(boxes: Tensor, size: int) -> Tensor:
    """The boxes of this size in the middle of larger ones; the centre stays the centre."""
    first = boxes.shape[-1] // 2 - size // 2
    kept = slice(first, first + size)
    return boxes[:, kept, kept, kept]
