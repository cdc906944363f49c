"""Whether an average can be trusted: more than noise aligned to itself, and of one structure, not of two.

Noise: aligned to one reference, boxes of pure noise average to that reference ("Einstein from noise": Henderson 2013,
PNAS 110:18037), and half-maps that share it do not tell. So a start is grown from copies of the boxes with random
phases: the likelihood of the real ones, each measured against a map that it is no part of, must be higher by more than
chance allows, and high enough.

Mixtures: one map is grown on all boxes, two that compete for them, and one on each half of the boxes dealt by lot. Two
structures in one group are told when two maps explain the boxes better, the boxes know which of the two they show, and
the two differ more than the maps of halves do.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tomotif.core import Subtomograms
from tomotif.tasks.average.group import Group
from tomotif.tasks.average.halves import Report
from tomotif.tasks.average.settings import AlignSettings
from tomotif.tasks.average.starts import Start, first_steps, grow, map_agreement, standard_errors

PARTICLES = 240
"""Largest number of boxes that are checked."""
_SIGNIFICANT = 4.0
"""Standard errors by which likelihoods must differ."""
_LEAST = 1.0
"""Least mean log likelihood ratio of a structure. Maps grown from noise differ by more than the scatter of the boxes in
one of them tells: simulated ones came out between -1.1 and 0.8, groups of real ribosomes at 7."""
_SURE = 0.8
"""Mean of |2 p - 1| over the boxes, p the probability that a box shows the first of two maps, from which boxes know."""
_UNLIKE = 0.1
"""How much less alike than by lot two competing maps are when they show two structures."""
_SMALLEST = 0.1
"""Smallest share of the boxes that makes a second structure."""
_STARTS = 2
"""Starts of the two competing maps: one that took two poses of one structure for two does not hide a mixture."""
_ROTATIONS = 576
"""Orientations of the starts' grid, half as many as an alignment takes: maps are compared here, not used."""


@dataclass(frozen=True)
class Mixture:
    """Whether a group is of one structure or of two.

    Attributes
    ----------
    margin
        By how many standard errors two competing maps explain the boxes better than one.
    share
        Share of the boxes that the smaller of the two gets.
    sure
        How sure the boxes are which of the two they show, 0 to 1.
    alike, alike_by_lot
        Correlation of the two maps, and of maps of two halves by lot, at their best fit, all frequencies alike; the
        same when one of the two has next to no boxes.
    """

    margin: float
    share: float
    sure: float
    alike: float
    alike_by_lot: float

    @property
    def told(self) -> bool:
        """The boxes show two structures."""
        apart = self.margin > _SIGNIFICANT and self.sure > _SURE and self.share > _SMALLEST
        return apart and self.alike < self.alike_by_lot - _UNLIKE


@dataclass(frozen=True)
class Checks:
    """What speaks for and against a group.

    Attributes
    ----------
    likelihood, noise_likelihood
        Mean log likelihood ratio of a map against none, of the boxes and of their phase-randomised copies.
    margin
        Their difference in standard errors.
    mixture
        Of one structure or of two; None for noise, which is of none.
    """

    likelihood: float
    noise_likelihood: float
    margin: float
    mixture: Mixture | None

    @property
    def is_noise(self) -> bool:
        """The boxes do not agree with each other better than noise would."""
        return self.margin < _SIGNIFICANT or self.likelihood < _LEAST

    @property
    def is_mixture(self) -> bool:
        """The boxes show two structures."""
        return self.mixture is not None and self.mixture.told

    @property
    def warnings(self) -> list[str]:
        """One clear line for each thing that is wrong."""
        if self.is_noise:
            return [
                "the particles do not agree with each other better than noise does "
                f"(log likelihood ratio {self.likelihood:.1f} a particle, at least {_LEAST:g} expected; "
                f"{self.margin:.1f} standard errors above phase-randomised copies, {_SIGNIFICANT:g} expected): "
                "this map is no structure"
            ]
        if self.mixture is not None and self.mixture.told:
            return [
                f"the particles show two structures, the rarer one {self.mixture.share:.0%} of them: two maps that "
                f"compete for them come out with a correlation of {self.mixture.alike:.2f}, maps of halves by lot with "
                f"{self.mixture.alike_by_lot:.2f}; classify or cluster them before averaging"
            ]
        return []

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        mixture = self.mixture and {name: round(value, 3) for name, value in asdict(self.mixture).items()}
        return {
            "likelihood": round(self.likelihood, 3),
            "noise_likelihood": round(self.noise_likelihood, 3),
            "margin": round(self.margin, 2),
            "is_noise": self.is_noise,
            "is_mixture": self.is_mixture,
            "mixture": mixture,
        }


def check(
    subtomograms: Subtomograms,
    rows: NDArray[np.int64],
    settings: AlignSettings,
    rng: np.random.Generator,
    report: Report,
) -> Checks:
    """Look for what is wrong with a group.

    Parameters
    ----------
    subtomograms
        Bright boxes.
    rows
        Those of one class.
    settings
        Those of the alignment.
    rng
        Decides boxes, starts and random phases.
    report
        Progress.
    """
    group = Group.of(subtomograms, np.sort(rng.permutation(rows)[:PARTICLES]), settings)
    everyone, steps = np.arange(len(group.rows)), first_steps(group.highest_start, _ROTATIONS)
    done = 0

    def grown(of: Group, index: NDArray[np.int64], classes: int = 1) -> Start:
        nonlocal done
        report("checking the group", done, 4 + _STARTS)
        done += 1
        return grow(of, index, rng, steps, classes=classes)

    one, noise = grown(group, everyone), grown(randomised(group, rng), everyone)
    margin = standard_errors(one.mean - noise.mean, np.hypot(one.likelihood.std(), noise.likelihood.std()), len(group))
    verdict = Checks(one.mean, noise.mean, margin, None)
    if verdict.is_noise:
        return verdict
    first, second = (grown(group, index) for index in np.array_split(rng.permutation(everyone), 2))
    by_lot = map_agreement(first.volume, second.volume, one.highest)
    mixtures = [mixture_of(one, grown(group, everyone, 2), by_lot) for _ in range(_STARTS)]
    mixture = max(mixtures, key=lambda found: (found.told, found.margin))
    return replace(verdict, mixture=mixture)


def mixture_of(one: Start, two: Start, by_lot: float) -> Mixture:
    """Two competing maps beside one."""
    gain = two.likelihood - one.likelihood
    share = float(two.share.mean(0).min())
    return Mixture(
        margin=standard_errors(float(gain.mean()), float(gain.std()), len(gain)),
        share=share,
        sure=float(np.abs(2 * two.share[:, 0] - 1).mean()),
        alike=map_agreement(two.volumes[0], two.volumes[1], two.highest) if share > _SMALLEST else by_lot,
        alike_by_lot=by_lot,
    )


def randomised(group: Group, rng: np.random.Generator) -> Group:
    """The same boxes with the phases of white noise."""
    size = group.size
    boxes = np.empty((len(group.rows), size, size, size), dtype=np.float32)
    for row in range(len(boxes)):
        amplitude = np.abs(np.fft.rfftn(group.boxes(np.array([row]))[0]))
        noise = np.fft.rfftn(rng.standard_normal(boxes.shape[1:]))
        boxes[row] = np.fft.irfftn(amplitude * noise / np.abs(noise), s=boxes.shape[1:], axes=(0, 1, 2))
    of = group.subtomograms
    copies = Subtomograms(of.particles.take(group.rows), boxes, of.voxel_size, of.missing_wedge)
    return Group.of(copies, np.arange(len(boxes)), group.settings)
