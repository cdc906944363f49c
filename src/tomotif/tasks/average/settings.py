"""Settings of averaging: which classes, how halves are compared, and how poses are found where none are known."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator

from tomotif.core import Settings


class AverageSettings(Settings):
    """How classes are averaged and their resolution is measured."""

    min_particles: Annotated[int, Field(ge=2)] = 8
    """Fewest particles of a class that are averaged."""
    halves: Literal["table", "alternate", "random"] = "table"
    """How a class is split for the half-maps: as the table's rlnRandomSubset says (every other particle where it says
    nothing), every other particle, or at random."""
    mask_radius: Annotated[float, Field(gt=0)] | None = None
    """Radius in Å of the soft sphere inside which half-maps are compared; by default 0.4 of the box's edge."""
    threshold: Annotated[float, Field(gt=0, lt=1)] = 0.143
    """Fourier shell correlation of the half-maps at which the resolution is read."""
    symmetry: str = "C1"
    """Point group to average over: C1, C4, D7, T, O, I …; "auto" takes the one that the half-maps bear out best."""

    @field_validator("symmetry")
    @classmethod
    def _known_group(cls, name: str) -> str:
        from tomotif.ops.orientations import point_group

        if name != "auto":
            point_group(name)
        return name


class AlignSettings(Settings):
    """How the particles of a class are aligned to each other, without a reference."""

    starts: Annotated[int, Field(ge=1)] = 3
    """Independent starts from random orientations; the likeliest goes on, and how well they agree is reported."""
    start_particles: Annotated[int, Field(ge=8)] = 400
    """Largest number of particles that the starts work with."""
    start_resolution: Annotated[float, Field(gt=0)] = 40.0
    """Resolution in Å up to which the first map grows (never beyond 0.3 cycles a voxel); the two halves share it."""
    max_shift_px: Annotated[float, Field(ge=0)] = 4.0
    """Largest shift along each axis from the box's centre in voxels."""
    rotations: Annotated[int, Field(ge=72)] = 4608
    """Orientations of the grid search; 4,608 are 15° apart."""
    rounds: Annotated[int, Field(ge=1)] = 5
    """Rounds in which the two halves are refined apart."""
    checks: bool = True
    """Whether to compare with phase-randomised boxes, to tell a structure from noise aligned to itself."""
    device: Literal["auto", "cpu", "gpu"] = "auto"
    """Where to search; 'auto' takes the GPU when there is one."""
