"""Expectation maximisation of a structure, or of several, from boxes of unknown pose, from nothing but the boxes.

Every box counts in every orientation and shift of a grid by its posterior probability (Sigworth 1998, J Struct Biol
122:328; Scheres et al. 2009, Structure 17:1563), so that a map can grow from noise where the best pose alone would lead
astray. The likelihoods of all turned references and all shifted boxes are one matrix product, and so are the sums of
boxes that each orientation of the next reference gets.

No box is compared with its own noise: the boxes are split into parts, and each is compared with the reference of the
others. That takes away the bias that holds a box where it is, and makes the likelihood of pure noise low.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Complex, Float
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation
from torch import Tensor

from tomotif.ops.align import EDGE_PX, PADDING, Band, Reference, correlation_rows
from tomotif.ops.fsc import soft_sphere


@dataclass(frozen=True, eq=False)
class FourierBlend:
    """Sums of turned-back coefficients and of their weights on a grid twice as fine as the boxes'.

    Attributes
    ----------
    box_px
        Edge D of the boxes.
    sums
        Real part, imaginary part and weight, shape (2 D · 2 D · (D + 1), 3).
    """

    box_px: int
    sums: Float[Tensor, "g 3"]

    @classmethod
    def zero(cls, box_px: int, device: str = "cpu") -> FourierBlend:
        """Sums of nothing."""
        padded = PADDING * box_px
        return cls(box_px, torch.zeros((padded * padded * (padded // 2 + 1), 3), device=device))

    def __add__(self, other: FourierBlend) -> FourierBlend:
        return FourierBlend(self.box_px, self.sums + other.sums)

    def add(self, values: Float[Tensor, "r q"], weights: Float[Tensor, "r p"], turn: Tensor, band: Band) -> None:
        """Add coefficients (real and imaginary side by side) of boxes that have these orientations, in place."""
        size, half = PADDING * self.box_px, self.box_px + 1
        points = (band.wave @ turn).reshape(-1, 3)
        mirrored = points[:, 2] < 0
        flip = 1 - 2 * mirrored.to(points.dtype)
        place = points * (PADDING * flip)[:, None]
        low = place.floor()
        share = place - low
        z, y, x = low.long().unbind(1)
        given = torch.cat([values.reshape(-1, 2), weights.reshape(-1, 1)], dim=1)
        given[:, 1] *= flip
        for i in (0, 1):
            for j in (0, 1):
                for k in (0, 1):
                    part = (share if i else 1 - share)[:, 0] * (share if j else 1 - share)[:, 1]
                    part = part * (share if k else 1 - share)[:, 2]
                    at = (torch.remainder(z + i, size) * size + torch.remainder(y + j, size)) * half + x + k
                    self.sums.index_add_(0, at, given * part[:, None])

    def volume(self, floor: float = 0.05) -> NDArray[np.float32]:
        """The map: sum over weight; where little was measured a part of the mean weight at that frequency is added.

        Returns
        -------
        NDArray[float32], shape (D, D, D)
            zyx, bright, inside the inscribed sphere, its centre at voxel D // 2.
        """
        size, box = PADDING * self.box_px, self.box_px
        grid = self.sums.reshape(size, size, box + 1, 3).cpu().double().numpy().copy()
        values, weight = grid[..., 0] + 1j * grid[..., 1], grid[..., 2]
        index = -np.arange(size) % size  # the plane kx = 0 holds both of each Friedel pair
        values[..., 0] += values[index][:, index, 0].conj()
        weight[..., 0] += weight[index][:, index, 0]
        values /= np.maximum(weight + floor * _shell_mean(weight), 1e-30)
        padded = np.fft.irfftn(values, s=(size,) * 3, axes=(0, 1, 2))
        offset = np.arange(box) - box // 2
        place = offset % size
        fall_off = np.sinc(offset / size) ** 2
        sphere = soft_sphere((box,) * 3, box / 2 - EDGE_PX, EDGE_PX)
        inner = padded[np.ix_(place, place, place)] / (fall_off[:, None, None] * fall_off[:, None] * fall_off)
        return (inner * sphere).astype(np.float32)


def _shell_mean(weight: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean over shells of a half spectrum, put back on it."""
    size = len(weight)
    full, half = np.fft.fftfreq(size) * size, np.fft.rfftfreq(size) * size
    z, y, x = np.meshgrid(full, full, half, indexing="ij", sparse=True)
    shell = np.round(np.sqrt(z**2 + y**2 + x**2)).astype(np.int64)
    mean = np.bincount(shell.ravel(), weight.ravel()) / np.bincount(shell.ravel())
    return mean[shell]


@dataclass(frozen=True, eq=False)
class Expected:
    """What one part of the boxes says about the references.

    Attributes
    ----------
    likelihood
        Log of the ratio of the likelihoods with the references, over all poses, and without them, shape (n,).
    share
        Probability that a box shows each of c references, shape (n, c).
    residual
        What the references leave of the boxes over what the noise was thought to have, a mean over the boxes and their
        poses for every coefficient, shape (p,): the noise is this many times stronger.
    """

    likelihood: Float[Tensor, " n"]
    share: Float[Tensor, "n c"]
    residual: Float[Tensor, " p"]


def expect(
    data: Complex[Tensor, "n p"],
    references: Sequence[Reference],
    band: Band,
    turn: Float[Tensor, "r 3 3"],
    shifts: Float[Tensor, "s 3"],
    blends: Sequence[FourierBlend],
    *,
    shifts_kept: int = 24,
    batch: int = 8,
) -> Expected:
    """Likelihood of every box in every pose of a grid; the boxes, weighted by it, are added to the blends.

    Parameters
    ----------
    data
        Coefficients of the boxes in the band.
    references, band
        One or several that a box may show, in the boxes' own units; the band's weights are one over the power of the
        noise in them.
    turn, shifts
        The grid of poses: orientations of the references, and shifts in voxels.
    blends
        Get the sums, one for each reference.
    shifts_kept
        Shifts tried with all orientations, the likeliest of those tried with every eighth.
    batch
        Boxes a matrix product.
    """
    root = band.weight.sqrt()
    rows = torch.cat([correlation_rows(one, turn, band) for one in references])  # whitened, not of length one
    energy = rows.square().sum(1)
    few = rows[::8]
    back = band.phases(-shifts)
    kept, classes = min(shifts_kept, len(shifts)), len(references)
    sums = torch.zeros_like(rows)
    weight = torch.zeros(len(rows), device=rows.device)
    power = torch.zeros(len(band), device=rows.device)
    found: list[tuple[Tensor, Tensor]] = []
    for some in (data * root).split(batch):
        n = len(some)
        power += some.abs().square().sum(0)
        moved = torch.view_as_real(some[:, None] * back).flatten(2)
        if kept < len(shifts):
            screened = (2 * (moved.flatten(0, 1) @ few.T) - energy[::8]).amax(1).reshape(n, -1)
            chosen = screened.topk(kept, dim=1).indices
            moved = moved.gather(1, chosen[..., None].expand(-1, -1, moved.shape[2]))
        moved = moved.flatten(0, 1)
        score = (2 * (moved @ rows.T) - energy).reshape(n, -1)
        best = score.amax(1)
        score.sub_(best[:, None]).exp_()
        total = score.sum(1)
        score.div_(total[:, None])
        share = score.reshape(n, kept, classes, -1).sum((1, 3))
        found.append((best + total.log() - math.log(len(rows) * len(shifts)), share))
        score = score.reshape(n * kept, -1)
        weight += score.sum(0)
        sums += score.T @ moved
    explained = (2 * sums - weight[:, None] * rows).mul_(rows).sum(0).reshape(-1, 2).sum(1)
    sums *= root.repeat_interleave(2)
    for blend, values, counts in zip(blends, sums.split(len(turn)), weight.split(len(turn)), strict=True):
        used = torch.nonzero(counts > 1e-3 * counts.max())[:, 0]
        for part in used.split(max(1, (1 << 20) // len(band))):
            blend.add(values[part], counts[part][:, None] * band.weight, turn[part], band)
    likelihood, share = (torch.cat(parts) for parts in zip(*found, strict=True))
    return Expected(likelihood, share, (power - explained) / len(data))


def random_blend(data: Complex[Tensor, "n p"], band: Band, rotations: Rotation) -> FourierBlend:
    """The sum of the boxes in given orientations, where they lie."""
    blend = FourierBlend.zero(band.box_px, str(data.device))
    turn = torch.from_numpy(rotations.as_matrix().astype(np.float32)).to(data.device)
    weights = band.weight.expand(len(data), -1)
    blend.add(torch.view_as_real(data * band.weight).flatten(1), weights, turn, band)
    return blend
