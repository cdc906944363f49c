"""The full path: specimen → tilt series → weighted back-projection."""

from __future__ import annotations

import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from tomotif.core import Labels, Particles, Structure, TiltSeries, Tomogram, Volume
from tomotif.io.environment import cpu_count
from tomotif.io.structure import load_structure
from tomotif.ops.exposure import acquisition_order, camera_transfer, damage, relative_noise
from tomotif.ops.project import Projector, back_projection_weights, projector, ramp
from tomotif.tasks.simulate.noise import noise_levels
from tomotif.tasks.simulate.settings import TomogramSettings
from tomotif.tasks.simulate.specimen import Specimen, build_specimen
from tomotif.tasks.simulate.transfer import contrast_transfer, image_noise_transfer

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, eq=False)
class SimulatedTomogram:
    """A tomogram and the truth about it.

    Parameters
    ----------
    tomogram
        The volume with its tilt range, in memory.
    particles
        What lies in it, with the columns of :class:`Specimen` and ``snr``: its own signal-to-noise ratio.
    classes, instances
        As in :class:`Specimen`.
    defocus_um
        The tomogram's nominal defocus in µm.
    density
        The specimen: bright, without wedge, CTF or noise.
    noise_free
        The reconstruction of the same tilt series without noise, in the tomogram's contrast; None when not asked for.
    tilt_series
        The noisy images.
    occupancy
        Fraction of the specimen's room inside molecular envelopes.
    """

    tomogram: Tomogram
    particles: Particles
    classes: Labels
    instances: Labels
    defocus_um: float
    density: NDArray[np.float32]
    noise_free: NDArray[np.float32] | None
    tilt_series: TiltSeries
    occupancy: float


def simulate_tomogram(
    structures: Sequence[Structure],
    settings: TomogramSettings,
    rng: np.random.Generator,
    name: str = "simulated",
    *,
    noise_free: bool = True,
) -> SimulatedTomogram:
    """A tomogram of a crowded specimen, from its tilt series, with the truth about it.

    Parameters
    ----------
    structures
        One class each, named by the structure.
    settings
        Volume, crowding, scenery, microscope and noise.
    rng
        Decides everything: the same state gives the same bytes.
    name
        The tomogram's name.
    noise_free
        Whether to reconstruct the images without noise too.

    Raises
    ------
    InputError
        As :func:`build_specimen`.
    """
    defocus = float(rng.uniform(*settings.defocus_um))
    specimen = build_specimen(structures, settings, rng, name)
    levels, deviation = signal_levels(specimen, structures, settings, defocus)
    camera = Camera.draw(settings, defocus, deviation, rng)
    clean = camera.expose(specimen.density)
    noisy = clean if deviation == 0 else clean + camera.noise(rng)
    volume = camera.reconstruct(noisy)
    without = camera.reconstruct(clean) if noise_free and noisy is not clean else volume
    alone = specimen.particles["structure"].map(levels).astype(float)
    snr = alone * specimen.particles["gain"].astype(float) ** 2
    return SimulatedTomogram(
        tomogram=Tomogram(Volume(volume, settings.voxel_size), name, settings.missing_wedge, settings.contrast),
        particles=specimen.particles.with_columns(snr=snr),
        classes=specimen.classes,
        instances=specimen.instances,
        defocus_um=defocus,
        density=specimen.density,
        noise_free=without if noise_free else None,
        tilt_series=camera.series(noisy, name),
        occupancy=specimen.occupancy,
    )


def signal_levels(
    specimen: Specimen, structures: Sequence[Structure], settings: TomogramSettings, defocus_um: float
) -> tuple[dict[str, float], float]:
    """SNR of every structure in the specimen by its source, and the deviation of the noise."""
    if settings.snr is None:
        return {}, 0.0
    present = set(specimen.particles["structure"])
    known = {s.source: s for s in [*structures, *map(load_structure, settings.other_structures)]}
    rows = noise_levels([s for key, s in known.items() if key in present] or structures, settings, defocus_um)
    sources = [key for key in known if key in present]
    return dict(zip(sources, (row.snr for row in rows), strict=False)), rows[0].noise_deviation


@dataclass(frozen=True, eq=False)
class Camera:
    """A tilt series about to be taken: how each image was really taken, and what the reconstruction believes.

    Images are handed on as their transforms by ``rfft2``, bright, shape (tilts, ny, nx // 2 + 1).

    Parameters
    ----------
    settings
        The tomogram's.
    believed, true
        Projectors of the nominal and of the true tilts.
    nominal_defocus_um, defocus_um
        Of the series; of each image.
    shift
        Misplacement (y, x) of each image in pixels, shape (tilts, 2).
    turn
        Turn of each image in its plane in degrees, shape (tilts,).
    deviation
        Standard deviation of the noise in the reconstruction.
    """

    settings: TomogramSettings
    believed: Projector
    true: Projector
    nominal_defocus_um: float
    defocus_um: NDArray[np.float64]
    shift: NDArray[np.float64]
    turn: NDArray[np.float64]
    deviation: float

    @classmethod
    def draw(cls, settings: TomogramSettings, defocus_um: float, deviation: float, rng: np.random.Generator) -> Camera:
        """Draw the errors of every image."""
        angles = np.asarray(settings.angles)
        n = len(angles)
        off = rng.standard_normal((5, n))
        tilted = angles + settings.tilt_jitter * off[0]
        shape, axis, threads = settings.shape, settings.tilt_axis, cpu_count()
        believed = projector(shape, settings.angles, axis, threads=threads)
        true = projector(shape, tuple(tilted), axis, threads=threads) if settings.tilt_jitter else believed
        return cls(
            settings,
            believed,
            true,
            defocus_um,
            defocus_um + settings.defocus_jitter_um * off[1],
            settings.shift_jitter / settings.voxel_size * off[2:4].T,
            settings.axis_jitter * off[4],
            deviation,
        )

    @property
    def frequency(self) -> NDArray[np.float32]:
        """Spatial frequency in 1/Å of an image's coefficients."""
        ny, nx = self.believed.image_shape
        ky, kx = np.fft.fftfreq(ny, self.settings.voxel_size), np.fft.rfftfreq(nx, self.settings.voxel_size)
        return np.hypot(ky[:, None], kx).astype(np.float32)

    def expose(self, density: NDArray[np.float32]) -> Tensor:
        """Images of a specimen without noise."""
        import torch

        images = torch.from_numpy(self.true.project(density))
        if self.settings.axis_jitter:
            from tomotif.ops.rotate import turn_in_plane

            images = turn_in_plane(images, self.turn)
        spectra = torch.fft.rfft2(images)
        camera = camera_transfer(self.frequency, self.settings.pixel_size, self.settings.mtf)
        received = self.settings.received()

        def transfer(tilt: int) -> None:
            seen = camera * contrast_transfer(self.frequency, self.settings, self.defocus_um[tilt])
            seen *= damage(self.frequency, received[tilt])
            spectra[tilt] *= torch.from_numpy(seen)
            if self.settings.shift_jitter:
                spectra[tilt] *= torch.from_numpy(self._shifting(self.shift[tilt]))

        with ThreadPoolExecutor(cpu_count()) as pool:
            list(pool.map(transfer, range(len(spectra))))
        return spectra

    def noise(self, rng: np.random.Generator) -> Tensor:
        """Images of nothing: noise that reconstructs to the camera's deviation."""
        import torch

        angles = self.settings.angles
        level = relative_noise(angles, self.settings.thickness)
        colour = image_noise_transfer(self.frequency, self.settings)
        unit = math.sqrt(float(np.sum((back_projection_weights(angles) * level) ** 2)) * self._mean_square(colour))
        white = rng.standard_normal((len(angles), *self.believed.image_shape), dtype=np.float32)
        white *= (level * self.deviation / unit).astype(np.float32)[:, None, None]
        return torch.fft.rfft2(torch.from_numpy(white)) * torch.from_numpy(colour)

    def reconstruct(self, spectra: Tensor) -> NDArray[np.float32]:
        """Weighted back-projection of phase-flipped images, in the tomogram's contrast."""
        import torch

        weights = back_projection_weights(self.settings.angles) * (-1 if self.settings.contrast == "dark" else 1)
        filtered = spectra * torch.from_numpy((self._ramp()[None] * weights[:, None, None]).astype(np.float32))
        if self.settings.phase_flip and self.settings.ctf:
            sign = np.sign(contrast_transfer(self.frequency, self.settings, self.nominal_defocus_um))
            filtered *= torch.from_numpy(sign)
        images = torch.fft.irfft2(filtered, s=self.believed.image_shape)
        return self.believed.back_project(images.numpy())

    def series(self, spectra: Tensor, name: str) -> TiltSeries:
        """The images as they would be written: dense matter dark, with the CTF's sign."""
        import torch

        settings = self.settings
        images = -torch.fft.irfft2(spectra, s=self.believed.image_shape)
        order = acquisition_order(settings.angles, settings.tilt_scheme).astype(np.float64)
        return TiltSeries(
            images=images.numpy(),
            pixel_size=settings.voxel_size,
            tilt_angles=np.array(settings.angles),
            exposure=order * settings.exposure,
            defocus_um=np.full(len(order), self.nominal_defocus_um),
            name=name,
            tilt_axis=settings.tilt_axis,
        )

    def _ramp(self) -> NDArray[np.float32]:
        """The ramp filter across the tilt axis on an image's coefficients, broadcastable to (ny, nx // 2 + 1)."""
        ny, nx = self.believed.image_shape
        if self.settings.tilt_axis == "y":
            return ramp(nx)[None, :]
        half = ramp(ny)
        return half[np.minimum(np.arange(ny), ny - np.arange(ny))][:, None]

    def _mean_square(self, colour: NDArray[np.float32]) -> float:
        """Variance of filtered white noise of variance 1."""
        nx = self.believed.image_shape[1]
        twice = np.full(colour.shape[1], 2.0)
        twice[0] = twice[-1] = 1.0
        return float(np.sum((colour * self._ramp()) ** 2 * twice) / (colour.shape[0] * nx))

    def _shifting(self, shift: NDArray[np.float64]) -> NDArray[np.complex64]:
        """Phases that move an image by (y, x) pixels."""
        ny, nx = self.believed.image_shape
        turns = np.fft.fftfreq(ny)[:, None] * shift[0] + np.fft.rfftfreq(nx) * shift[1]
        return np.exp(-2j * np.pi * turns).astype(np.complex64)
