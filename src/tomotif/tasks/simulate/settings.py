"""Settings of the simulation: how a specimen is seen, and what is in it."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from tomotif.core import Contrast, MissingWedge, Settings
from tomotif.core.missing_wedge import TiltAxis
from tomotif.core.settings import FloatOrNone
from tomotif.ops.exposure import TiltScheme, acquisition_order


class ImagingSettings(Settings):
    """How the microscope and the reconstruction see a structure."""

    voxel_size: float = Field(default=12.0, gt=0)
    """Edge of a voxel in Å."""

    resolution: float = Field(default=25.0, gt=0)
    """Resolution of the noise-free density in Å: its Fourier amplitude falls to 1/e at 1 / resolution."""

    tilt_range: tuple[float, float] = (-60.0, 60.0)
    """Measured tilt range in degrees."""

    tilt_step: float = Field(default=3.0, gt=0)
    """Step between tilts in degrees."""

    tilt_angles: tuple[float, ...] | None = None
    """Angles of all the images in degrees, instead of a range and a step."""

    tilt_scheme: TiltScheme = "dose_symmetric"
    """Order in which the images are taken."""

    tilt_axis: TiltAxis = "y"
    """Axis of the tilt series."""

    exposure: float = Field(default=0.0, ge=0)
    """Exposure of each image in e/Å² (3 is usual), which damages what later images see; 0 for no radiation damage."""

    defocus_um: tuple[float, float] = (2.0, 6.0)
    """Range of the defocus in µm, above 0 is underfocus; each box or tomogram draws its own."""

    ctf: bool = True
    """Whether the contrast transfer function is applied."""

    voltage_kv: float = Field(default=300.0, gt=0)
    """Acceleration voltage in kV."""

    spherical_aberration_mm: float = Field(default=2.7, ge=0)
    """Spherical aberration in mm."""

    amplitude_contrast: float = Field(default=0.07, ge=0, lt=1)
    """Amplitude contrast as a fraction."""

    pixel_size: float = Field(default=1.7, gt=0)
    """The camera's pixel at the specimen in Å."""

    mtf: float = Field(default=1.0, gt=0, le=1)
    """The camera's transfer, of signal and noise, at the highest frequency its pixels sample (0.6 is usual);
    1 when perfect."""

    snr: FloatOrNone = Field(default=0.1, gt=0)
    """Signal-to-noise ratio: variance of the particle alone over variance of the noise alone, both in the
    reconstruction with CTF and wedge, over the cubic box; "none" for no noise."""

    noise_decay: float = Field(default=0.0, ge=0)
    """Colour of the noise in the images: its amplitude falls as exp(-(k · noise_decay)²), in Å; 0 is white."""

    @model_validator(mode="after")
    def _ordered(self) -> ImagingSettings:
        if len(self.angles) < 2:
            raise ValueError(
                f"expected at least two images in a tilt series, got the angles {list(self.angles)}; give a wider "
                "--tilt-range or a smaller --tilt-step"
            )
        _ = self.missing_wedge
        if self.defocus_um[0] > self.defocus_um[1]:
            raise ValueError(f"expected a defocus range min <= max in µm, got {self.defocus_um}")
        return self

    @property
    def angles(self) -> tuple[float, ...]:
        """Tilt angles in degrees, from the lowest to the highest."""
        if self.tilt_angles is not None:
            return tuple(sorted(set(self.tilt_angles)))
        MissingWedge(*self.tilt_range, self.tilt_axis)
        low, high = self.tilt_range
        steps = int((high - low) / self.tilt_step + 1e-6)
        return tuple(round(low + self.tilt_step * i, 6) for i in range(steps + 1))

    @property
    def missing_wedge(self) -> MissingWedge:
        """The measured tilt range."""
        if self.tilt_angles is None:
            return MissingWedge(*self.tilt_range, self.tilt_axis)
        return MissingWedge(self.angles[0], self.angles[-1], self.tilt_axis)

    def received(self) -> NDArray[np.float64]:
        """Exposure in e/Å² that the specimen had received at the middle of each image, shape (tilts,)."""
        return (acquisition_order(self.angles, self.tilt_scheme).astype(np.float64) + 0.5) * self.exposure


class SubtomogramSettings(ImagingSettings):
    """Boxes around single particles."""

    count: int = Field(default=100, gt=0)
    """Boxes of each structure."""

    background: int = Field(default=0, ge=0)
    """Boxes without a particle in the middle, of class "background"."""

    box_px: int = Field(default=32, ge=8)
    """Edge of a box in voxels."""

    max_shift_px: float = Field(default=2.0, ge=0)
    """The particle lies off the centre by up to this many voxels along each axis."""

    neighbours: int = Field(default=0, ge=0, le=32)
    """Other particles around the one in the middle."""

    neighbour_gap: tuple[float, float] = (0.0, 40.0)
    """Range of the distance in Å between the surfaces of a neighbour and the particle in the middle."""

    snr_reference: str = "each"
    """Whose signal the SNR is about: "each" for every structure its own, else one structure, such as "1bxn"."""


class MembraneSettings(Settings):
    """Lipid bilayers of one kind."""

    kind: Literal["vesicle", "plane", "cell"] = "vesicle"
    """A vesicle is closed and inside the volume; a plane is nearly flat and goes through the volume; a cell is a large
    envelope of which the volume shows a part, with the complexes inside."""

    count: int = Field(default=1, ge=0)
    """How many."""

    radius: tuple[float, float] = (200.0, 500.0)
    """Range of the semi-axes in Å of a vesicle or cell."""

    thickness: float = Field(default=40.0, gt=0)
    """Distance between the two layers of head groups in Å."""

    roughness: float = Field(default=0.05, ge=0, le=0.3)
    """Deviation from an ellipsoid or plane, relative to the radius (a plane: to 1,000 Å)."""

    bound: tuple[str, ...] = ()
    """Structures that sit on the outside."""

    crossing: tuple[str, ...] = ()
    """Structures that cross it, their long axis along the normal."""

    per_um2: float = Field(default=2000.0, ge=0)
    """Complexes, bound and crossing together, on a square µm."""


class FilamentSettings(Settings):
    """Filaments of one kind."""

    kind: Literal["actin", "microtubule"] = "actin"
    """Which."""

    count: int = Field(default=5, ge=0)
    """How many."""

    length: tuple[float, float] = (1000.0, 4000.0)
    """Range of the length in Å."""

    persistence_length: FloatOrNone = Field(default=None, gt=0)
    """Persistence length in Å; by default 10 µm for actin and 1 mm for microtubules."""


class GoldSettings(Settings):
    """Gold beads."""

    count: int = Field(default=5, ge=0)
    """How many."""

    diameter: tuple[float, float] = (90.0, 110.0)
    """Range of the diameter in Å."""


class TomogramSettings(ImagingSettings):
    """A volume full of complexes."""

    shape: tuple[int, int, int] = (128, 256, 256)
    """Shape zyx in voxels."""

    ice_thickness: FloatOrNone = Field(default=None, gt=0)
    """Thickness of the specimen in Å, in the middle of the volume; by default the volume is full."""

    occupancy: float = Field(default=0.05, ge=0, lt=1)
    """Fraction of the specimen inside molecular envelopes; cytoplasm has 0.15 to 0.3."""

    abundances: tuple[float, ...] | None = None
    """Relative number of each structure; by default all are equally many."""

    counts: tuple[int, ...] | None = None
    """Number of each structure, instead of an occupancy; a single number serves them all."""

    distractors: tuple[str, ...] = ()
    """Structures that are there too, all of class "distractor"."""

    distractor_occupancy: float = Field(default=0.0, ge=0, lt=1)
    """Fraction of the specimen inside the distractors' envelopes."""

    contrast_spread: float = Field(default=0.0, ge=0, le=2)
    """Relative standard deviation of the particles' contrast."""

    gap_px: int = Field(default=0, ge=0)
    """Voxels left free between molecular envelopes."""

    membranes: tuple[MembraneSettings, ...] = ()
    """Lipid bilayers."""

    filaments: tuple[FilamentSettings, ...] = ()
    """Filaments."""

    gold: tuple[GoldSettings, ...] = ()
    """Gold beads."""

    box_px: int = Field(default=32, ge=8)
    """Edge in voxels of the cubic box that the SNR is about."""

    snr_reference: str = "1bxn"
    """The structure whose SNR is set; the others scatter more or less."""

    phase_flip: bool = True
    """Whether the images are corrected for the sign of the CTF before reconstruction."""

    defocus_jitter_um: float = Field(default=0.0, ge=0)
    """Standard deviation in µm of an image's defocus from the series', which the correction does not know."""

    shift_jitter: float = Field(default=0.0, ge=0)
    """Standard deviation in Å of an image's misplacement along each axis."""

    axis_jitter: float = Field(default=0.0, ge=0)
    """Standard deviation in degrees of an image's turn in its plane."""

    tilt_jitter: float = Field(default=0.0, ge=0)
    """Standard deviation in degrees of an image's tilt from the nominal one."""

    contrast: Contrast = "dark"
    """Whether dense matter is dark, as in raw tomograms, or bright."""

    @property
    def thickness(self) -> float:
        """Thickness of the ice in Å."""
        return self.ice_thickness or self.shape[0] * self.voxel_size

    @property
    def other_structures(self) -> tuple[str, ...]:
        """Names of all the structures in the scenery."""
        of_membranes = [name for m in self.membranes for name in (*m.bound, *m.crossing)]
        return tuple(dict.fromkeys([*self.distractors, *of_membranes]))
