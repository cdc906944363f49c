"""Expectation maximisation of one structure from boxes of unknown pose, from nothing but the boxes.

Every box counts in every orientation and shift of a grid by its posterior probability (Sigworth 1998, J Struct Biol
122:328; Scheres et al. 2009, Structure 17:1563), so that a map can grow from noise where the best pose alone would lead
astray. The likelihoods of all turned references and all shifted boxes are one matrix product, and so are the sums of
boxes that each orientation of the next reference gets.

No box is compared with its own noise: the boxes are split into parts, and each is compared with the reference of the
others. That takes away the bias that holds a box where it is, and makes the likelihood of pure noise low.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Complex, Float, Int
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
    """What one part of the boxes says about the reference.

    Attributes
    ----------
    likelihood
        Log of the ratio of the likelihoods with the reference, over all poses, and without it, shape (n,).
    rotation, shift
        Index of the likeliest orientation, and the likeliest shift in voxels, of each box.
    """

    likelihood: Float[Tensor, " n"]
    rotation: Int[Tensor, " n"]
    shift: Float[Tensor, "n 3"]


def expect(
    data: Complex[Tensor, "n p"],
    reference: Reference,
    band: Band,
    turn: Float[Tensor, "r 3 3"],
    shifts: Float[Tensor, "s 3"],
    blend: FourierBlend | None,
    *,
    shifts_kept: int = 24,
    batch: int = 8,
) -> Expected:
    """Likelihood of every box in every pose of a grid; the boxes, weighted by it, are added to the blend.

    Parameters
    ----------
    data
        Coefficients of the boxes in the band.
    reference, band
        In the boxes' own units; the band's weights are one over the power of the noise in them.
    turn, shifts
        The grid of poses: orientations of the reference, and shifts in voxels.
    blend
        Gets the sums; None when only the likelihood is wanted.
    shifts_kept
        Shifts tried with all orientations, the likeliest of those tried with every eighth.
    batch
        Boxes a matrix product.
    """
    root = band.weight.sqrt()
    rows = correlation_rows(reference, turn, band)  # whitened, not of length one
    energy = rows.square().sum(1)
    few = rows[::8]
    back = band.phases(-shifts)
    kept = min(shifts_kept, len(shifts))
    sums = torch.zeros_like(rows) if blend is not None else None
    weight = torch.zeros(len(turn), device=rows.device)
    found: list[tuple[Tensor, Tensor, Tensor]] = []
    for some in (data * root).split(batch):
        n = len(some)
        moved = torch.view_as_real(some[:, None] * back).flatten(2)
        if kept < len(shifts):
            screened = (2 * (moved.flatten(0, 1) @ few.T) - energy[::8]).amax(1).reshape(n, -1)
            chosen = screened.topk(kept, dim=1).indices
            moved = moved.gather(1, chosen[..., None].expand(-1, -1, moved.shape[2]))
        else:
            chosen = torch.arange(kept, device=rows.device).expand(n, -1)
        score = 2 * (moved.flatten(0, 1) @ rows.T) - energy
        score = score.reshape(n, -1)
        best, where = score.max(1)
        score.sub_(best[:, None]).exp_()
        total = score.sum(1)
        likelihood = best + total.log() - math.log(len(turn) * len(shifts))
        found.append((likelihood, where % len(turn), shifts[chosen.gather(1, (where // len(turn))[:, None])[:, 0]]))
        if sums is not None:
            score = (score / total[:, None]).reshape(n * kept, -1)
            weight += score.sum(0)
            sums += score.T @ moved.flatten(0, 1)
    if blend is not None and sums is not None:
        used = weight > 1e-3 * weight.max()
        values = sums[used] * root.repeat_interleave(2)
        for part in torch.arange(int(used.sum())).split(max(1, (1 << 20) // len(band))):
            weights = weight[used][part][:, None] * band.weight
            blend.add(values[part], weights, turn[used][part], band)
    likelihood, rotation, shift = (torch.cat(parts) for parts in zip(*found, strict=True))
    return Expected(likelihood, rotation, shift)


def random_blend(data: Complex[Tensor, "n p"], band: Band, rotations: Rotation) -> FourierBlend:
    """The sum of the boxes in given orientations, where they lie."""
    blend = FourierBlend.zero(band.box_px, str(data.device))
    turn = torch.from_numpy(rotations.as_matrix().astype(np.float32)).to(data.device)
    weights = band.weight.expand(len(data), -1)
    blend.add(torch.view_as_real(data * band.weight).flatten(1), weights, turn, band)
    return blend
