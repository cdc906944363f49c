"""Whether an average is more than noise aligned to itself, and whether it is of one structure.

*Noise*: aligned to one reference, boxes of pure noise average to that reference ("Einstein from noise": Henderson
2013, PNAS 110:18037). So the same start is made from the same boxes with their phases randomised, and the likelihood of
the real ones, each measured against a map that it is no part of, must be higher by more than chance allows.

*Mixture*: along the direction in which aligned boxes of one half differ most, the boxes of the other half must not fall
into two groups whose maps, fitted to each other, agree worse than the maps of groups drawn by lot. (Boxes in wrong
poses make a group too, but its map is the same structure turned.)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tomotif.core import Subtomograms
from tomotif.ops.align import Band, Reference
from tomotif.ops.expectation import FourierBlend
from tomotif.tasks.average.blind import Aligned, Group, Report, all_coefficients, grow, map_agreement, tensor
from tomotif.tasks.average.settings import AlignSettings

_SIGNIFICANT = 4.0
"""Standard errors by which the likelihoods must differ."""
_APART = 2.0
"""Ashman's D above which two groups are apart."""
_ALIKE = 0.9
"""Maps of two groups are of two structures when they agree less than this times what groups drawn by lot do."""
_EARLY = 6.0
"""Frequency in cycles a box up to which the randomised start is grown."""


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
    apart
        Ashman's D of the two groups the boxes fall into along the direction in which they differ most.
    share
        Fraction of the smaller one.
    alike, alike_by_lot
        Correlation of the two groups' maps at their best fit, and that of groups of this size drawn by lot.
    is_mixture
        The boxes are of (at least) two kinds.
    """

    likelihood: float
    noise_likelihood: float
    margin: float
    is_noise: bool
    apart: float
    share: float
    alike: float
    alike_by_lot: float
    is_mixture: bool

    @property
    def warnings(self) -> list[str]:
        """One clear line for each thing that is wrong."""
        said = []
        if self.is_noise:
            said.append(
                "the particles do not agree with each other better than noise does "
                f"({self.margin:.1f} standard errors above phase-randomised copies, {_SIGNIFICANT:g} are expected): "
                "this map is no structure"
            )
        if self.is_mixture:
            said.append(
                f"the particles fall into two groups ({100 * self.share:.0f} % and {100 * (1 - self.share):.0f} %, "
                f"whose maps correlate by {self.alike:.2f} where one structure would by {self.alike_by_lot:.2f}): "
                "this map is a mixture; cluster or classify the particles"
            )
        return said

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "likelihood": round(self.likelihood, 3),
            "noise_likelihood": round(self.noise_likelihood, 3),
            "margin": round(self.margin, 2),
            "is_noise": self.is_noise,
            "apart": round(self.apart, 3),
            "share": round(self.share, 3),
            "alike": round(self.alike, 3),
            "alike_by_lot": round(self.alike_by_lot, 3),
            "is_mixture": self.is_mixture,
            "warnings": self.warnings,
        }


def check(
    subtomograms: Subtomograms, aligned: Aligned, settings: AlignSettings, rng: np.random.Generator, report: Report
) -> Checks:
    """Compare with phase-randomised boxes, and look for two groups.

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
    real = grow(group, index, rng, early, None)
    report("comparing with noise", 1, 2)
    noise = grow(randomised(group, index, rng), np.arange(len(index)), rng, early, None)
    report("comparing with noise", 2, 2)
    best = max(float(real.likelihood.mean()), *(aligned.starts.get("likelihoods") or [-np.inf]))
    error = np.sqrt((real.likelihood.var() + noise.likelihood.var()) / len(index)) + 1e-9
    margin = float((best - noise.likelihood.mean()) / error)
    groups = two_groups(group, aligned, index)
    return Checks(
        likelihood=best,
        noise_likelihood=float(noise.likelihood.mean()),
        margin=margin,
        is_noise=bool(margin < _SIGNIFICANT),
        apart=groups.apart,
        share=groups.share,
        alike=groups.alike,
        alike_by_lot=groups.alike_by_lot,
        is_mixture=groups.are_two and groups.alike < _ALIKE * groups.alike_by_lot,
    )


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


class TwoGroups(NamedTuple):
    """Two groups that aligned boxes may fall into; names as in :class:`Checks`."""

    apart: float
    share: float
    are_two: bool
    alike: float
    alike_by_lot: float


def two_groups(group: Group, aligned: Aligned, index: NDArray[np.int64]) -> TwoGroups:
    """Split aligned boxes in two along the direction in which they differ most, and compare the groups' maps.

    In each half the direction of the largest difference is found by power iteration; the other half's boxes are
    projected on it, each inside its own wedge.
    """
    from sklearn.mixture import GaussianMixture

    band = group.band(min(8.0, group.highest_start))
    data = all_coefficients(group, index, band)
    turn = tensor(aligned.poses.rotations[index].as_matrix(), group.device)
    back = band.phases(-tensor(aligned.poses.shifts_px[index], group.device))
    centred = data * back
    half = aligned.half[index]
    values = np.zeros(len(index))
    for mine in (1, 2):
        here, there = np.flatnonzero(half == mine), np.flatnonzero(half != mine)
        mean = Reference.of(blend(centred[here], turn[here], band).volume(), device=group.device)
        difference = leading_difference(residuals(centred[here], turn[here], band, mean), turn[here], band)
        left = residuals(centred[there], turn[there], band, mean)
        found = projections(left, turn[there], band, difference).cpu().numpy()
        values[there] = found if mine == 1 else found * _sign(values, found, there)
    fits = [GaussianMixture(k, n_init=3, random_state=0).fit(values[:, None]) for k in (1, 2)]
    two = fits[1]
    spread = np.sqrt(two.covariances_[:, 0, 0])
    apart = float(np.sqrt(2) * abs(two.means_[0, 0] - two.means_[1, 0]) / np.sqrt((spread**2).sum()))
    share = float(two.weights_.min())
    better = fits[0].bic(values[:, None]) - two.bic(values[:, None]) > 10
    smaller = two.predict(values[:, None]) == int(two.weights_.argmin())
    lot = np.random.default_rng(0).permutation(smaller)
    alike, by_lot = (_likeness(centred, turn, band, members) for members in (smaller, lot))
    return TwoGroups(apart, share, bool(better and apart > _APART and share > 0.1), alike, by_lot)


def _likeness(values: Tensor, turn: Tensor, band: Band, members: NDArray[np.bool_]) -> float:
    """Correlation of the maps of some boxes and of the others at their best fit; 1 when one side is empty."""
    if members.all() or not members.any():
        return 1.0
    first, second = (blend(values[rows], turn[rows], band) for rows in map(np.flatnonzero, (members, ~members)))
    return map_agreement(second.volume(), first.volume(), float(band.wave.norm(dim=1).max()))


def _sign(values: NDArray[np.float64], found: NDArray[np.float64], there: NDArray[np.int64]) -> float:
    """The two halves' directions point either way: make both skewed the same."""
    first = np.delete(values, there)
    return float(np.sign(np.mean((first - first.mean()) ** 3) * np.mean((found - found.mean()) ** 3)) or 1.0)


def blend(values: Tensor, turn: Tensor, band: Band) -> FourierBlend:
    """The sum of boxes in their poses."""
    made = FourierBlend.zero(band.box_px, str(values.device))
    scaled = torch.view_as_real(values * band.weight).flatten(1)
    made.add(scaled, band.weight.expand(len(values), -1), turn, band)
    return made


def seen(reference: Reference, turn: Tensor, band: Band) -> Tensor:
    """What each box would show of a map."""
    return torch.cat([reference.sample(band.wave @ some, gradient=False)[..., 0] for some in turn.split(64)])


def residuals(values: Tensor, turn: Tensor, band: Band, mean: Reference) -> Tensor:
    """Boxes without what they share, at each one's own contrast."""
    model = seen(mean, turn, band)
    weight = band.weight
    scale = ((values.conj() * model).real * weight).sum(1) / ((model.abs() ** 2) * weight).sum(1).clamp(min=1e-20)
    return values - scale[:, None] * model


def projections(left: Tensor, turn: Tensor, band: Band, difference: Reference) -> Tensor:
    """How much of a difference map each residual holds, in units of its noise."""
    model = seen(difference, turn, band)
    inner = ((left.conj() * model).real * band.weight).sum(1)
    return inner / ((model.abs() ** 2) * band.weight).sum(1).sqrt().clamp(min=1e-20)


def leading_difference(left: Tensor, turn: Tensor, band: Band, iterations: int = 12) -> Reference:
    """The map along which residuals vary most: the first principal component, by power iteration."""
    generator = torch.Generator().manual_seed(0)
    factor = torch.randn(len(left), generator=generator).to(left.device)
    for _ in range(iterations):
        difference = Reference.of(blend(left * factor[:, None], turn, band).volume(), device=str(left.device))
        factor = projections(left, turn, band, difference)
        factor = factor / factor.std().clamp(min=1e-12)
    return difference
