"""Whether an average is more than noise aligned to itself.

Aligned to one reference, boxes of pure noise average to that reference ("Einstein from noise": Henderson 2013, PNAS
110:18037), and the agreement of half-maps does not tell. So the same start is made from the same boxes with random
phases: the likelihood of the real ones, each measured against a map that it is no part of, must be higher by more than
chance allows. Not here: whether the boxes are of one kind or of several.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tomotif.core import Subtomograms
from tomotif.tasks.average.blind import Aligned, Group, Report, grow
from tomotif.tasks.average.settings import AlignSettings

_SIGNIFICANT = 4.0
"""Standard errors by which the likelihoods must differ."""
_EARLY = 6.0
"""Frequency in cycles a box up to which both starts are grown."""


@dataclass(frozen=True)
class Checks:
    """What speaks against an average.

    Attributes
    ----------
    likelihood, noise_likelihood
        Mean log likelihood ratio of a map against none, of the boxes and of their phase-randomised copies.
    margin
        Their difference in standard errors.
    is_noise
        The boxes do not agree with each other better than noise would.
    """

    likelihood: float
    noise_likelihood: float
    margin: float
    is_noise: bool

    @property
    def warnings(self) -> list[str]:
        """One clear line for each thing that is wrong."""
        if not self.is_noise:
            return []
        return [
            "the particles do not agree with each other better than noise does "
            f"({self.margin:.1f} standard errors above phase-randomised copies, {_SIGNIFICANT:g} are expected): "
            "this map is no structure"
        ]

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "likelihood": round(self.likelihood, 3),
            "noise_likelihood": round(self.noise_likelihood, 3),
            "margin": round(self.margin, 2),
            "is_noise": self.is_noise,
            "warnings": self.warnings,
        }


def check(
    subtomograms: Subtomograms, aligned: Aligned, settings: AlignSettings, rng: np.random.Generator, report: Report
) -> Checks:
    """Compare the boxes with phase-randomised copies of themselves.

    Parameters
    ----------
    subtomograms, aligned
        Boxes, and the poses found for them.
    settings
        Those of the alignment.
    rng
        Decides the random phases.
    report
        Progress.
    """
    group = Group.of(subtomograms, aligned.rows, settings)
    index = np.sort(rng.permutation(len(aligned.rows))[: settings.start_particles])
    early = min(_EARLY, group.highest_start)
    report("comparing with noise", 0, 2)
    real = grow(group, index, rng, early, None).likelihood
    report("comparing with noise", 1, 2)
    noise = grow(randomised(group, index, rng), np.arange(len(index)), rng, early, None).likelihood
    report("comparing with noise", 2, 2)
    error = np.sqrt((real.var() + noise.var()) / len(index)) + 1e-9
    margin = float((real.mean() - noise.mean()) / error)
    return Checks(float(real.mean()), float(noise.mean()), margin, bool(margin < _SIGNIFICANT))


def randomised(group: Group, index: NDArray[np.int64], rng: np.random.Generator) -> Group:
    """The same boxes with the phases of white noise."""
    boxes = np.empty((len(index), *[group.size] * 3), dtype=np.float32)
    for row, box in enumerate(index):
        amplitude = np.abs(np.fft.rfftn(group.boxes(np.array([box]))[0]))
        noise = np.fft.rfftn(rng.standard_normal(boxes.shape[1:]))
        boxes[row] = np.fft.irfftn(amplitude * noise / np.abs(noise), s=boxes.shape[1:], axes=(0, 1, 2))
    of = group.subtomograms
    copies = Subtomograms(of.particles.take(group.rows[index]), boxes, of.voxel_size, of.missing_wedge)
    return Group.of(copies, np.arange(len(index)), group.settings)
