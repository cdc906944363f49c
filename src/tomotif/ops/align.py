"""Pose search: where and how turned a reference lies in noisy boxes with a missing wedge.

Boxes are compared with the turned reference only where the tilt series measured Fourier space (the constrained
cross-correlation: Förster et al. 2005, PNAS 102:4729), and every coefficient counts as much as its noise allows. All
rotations and shifts of a grid are scored at once: inside a sphere and the wedge, the correlation of
every turned reference with every shifted box is one matrix product. The best few are then refined together by
Levenberg–Marquardt steps on rotation, shift and amplitude, with analytic gradients.

Boxes are bright, zyx, their centre at voxel D // 2; wave vectors are in cycles a box.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
import torch
from jaxtyping import Complex, Float, Int
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation
from torch import Tensor

from tomotif.core import InputError, MissingWedge
from tomotif.ops.fsc import soft_sphere
from tomotif.ops.orientations import body_centred_grid, nearest_rotations, uniform_rotations

PADDING = 2
EDGE_PX = 3.0
_NEIGHBOURS = 10
"""Neighbours of a rotation on the grid that it must outdo to be refined."""


@dataclass(frozen=True, eq=False)
class Band:
    """The measured Fourier coefficients of a box up to a frequency, one of each Friedel pair.

    Parameters
    ----------
    box_px
        Edge D of the boxes.
    wave
        Wave vectors zyx in cycles a box, shape (p, 3).
    weight
        How much each counts: one over the noise's power, shape (p,).
    """

    box_px: int
    wave: Float[Tensor, "p 3"]
    weight: Float[Tensor, " p"]

    @classmethod
    def measured(
        cls,
        box_px: int,
        missing_wedge: MissingWedge | None,
        highest: float,
        noise_power: Float[np.ndarray, "d d h"] | None = None,
    ) -> Band:
        """The coefficients inside the wedge from frequency 1 to ``highest`` cycles a box.

        Parameters
        ----------
        box_px
            Edge D of the boxes.
        missing_wedge
            Measured tilt range; None when everything was measured.
        highest
            Largest length of a wave vector, at most D / 2.
        noise_power
            Power of the noise in the layout of ``rfftn``; white when not given.
        """
        size = box_px
        full, half = np.fft.fftfreq(size) * size, np.fft.rfftfreq(size) * size
        z, y, x = (part.ravel() for part in np.meshgrid(full, full, half, indexing="ij"))
        radius = np.sqrt(z**2 + y**2 + x**2)
        once = (x > 0) | ((x == 0) & ((y > 0) | ((y == 0) & (z > 0))))
        # at the Nyquist frequency itself the sign of a wave is unknown
        inner = np.maximum.reduce([np.abs(z), np.abs(y), x]) < size / 2
        kept = once & inner & (radius >= 1) & (radius <= highest)
        if missing_wedge is not None:
            kept &= missing_wedge.contains(z, y, x)
        weight = np.ones(len(z)) if noise_power is None else 1 / np.maximum(noise_power.ravel(), 1e-30)
        wave = np.stack([z, y, x], axis=1)[kept]
        return cls(size, torch.from_numpy(wave.astype(np.float32)), torch.from_numpy(weight[kept].astype(np.float32)))

    def __len__(self) -> int:
        return len(self.wave)

    def within(self, highest: float) -> Band:
        """The part of the band up to a lower frequency."""
        kept = self.wave.norm(dim=1) <= highest
        return replace(self, wave=self.wave[kept], weight=self.weight[kept])

    def to(self, device: str) -> Band:
        """The same on another device."""
        return replace(self, wave=self.wave.to(device), weight=self.weight.to(device))

    def coefficients(self, boxes: Float[Tensor, "n d d d"]) -> Complex[Tensor, "n p"]:
        """The boxes' coefficients about their centre."""
        size = self.box_px
        spectrum = torch.fft.rfftn(boxes, dim=(1, 2, 3)).flatten(1)
        z, y, x = self.wave.long().unbind(1)
        at = ((z % size) * size + y % size) * (size // 2 + 1) + x
        sign = 1 - 2 * ((z + y + x) % 2).to(boxes.dtype)  # moves the origin from voxel 0 to D // 2
        if size % 2:
            return spectrum[:, at] * self.phases(torch.full((1, 3), -(size // 2), dtype=boxes.dtype))
        return spectrum[:, at] * sign

    def volume(self, values: Complex[Tensor, " p"]) -> NDArray[np.float32]:
        """The map, its centre at voxel D // 2, that has these coefficients in the band and no others."""
        size = self.box_px
        spectrum = torch.zeros((size, size, size // 2 + 1), dtype=torch.complex64)
        z, y, x = self.wave.cpu().long().unbind(1)
        given, plane = values.cpu(), (x == 0).cpu()
        spectrum[z % size, y % size, x] = given
        spectrum[-z[plane] % size, -y[plane] % size, 0] = given[plane].conj()
        volume: NDArray[np.float32] = torch.fft.irfftn(spectrum, s=(size,) * 3).numpy()
        return np.roll(volume, (size // 2,) * 3, (0, 1, 2))

    def phases(self, shifts: Float[Tensor, "s 3"]) -> Complex[Tensor, "s p"]:
        """What multiplies the coefficients of a volume that is moved by shifts in voxels."""
        angle = shifts @ self.wave.T * (-2 * math.pi / self.box_px)
        return torch.polar(torch.ones_like(angle), angle)


@dataclass(frozen=True, eq=False)
class Reference:
    """A map made ready to be turned: its transform and the transform's gradient on a grid twice as fine.

    Parameters
    ----------
    box_px
        Edge D of the map.
    grid
        Real and imaginary parts of the transform and of its derivatives along z, y, x, shape (2 D, 2 D, D + 1, 8), the
        map's centre at the origin.
    """

    box_px: int
    grid: Float[Tensor, "s s h 8"]

    @classmethod
    def of(cls, volume: Float[np.ndarray, "d d d"], *, device: str = "cpu") -> Reference:
        """Prepare a bright map whose centre is voxel D // 2; only what lies in the inscribed sphere counts.

        Raises
        ------
        InputError
            When the map is not cubic or is constant.
        """
        if volume.ndim != 3 or len(set(volume.shape)) > 1:
            raise InputError(f"expected a cubic reference, got shape {volume.shape}")
        if not np.ptp(volume) > 0:
            raise InputError("expected a reference with some density in it, got a constant map")
        size = len(volume)
        padded = PADDING * size
        sphere = soft_sphere((size,) * 3, size / 2 - EDGE_PX, EDGE_PX)
        edge = sphere * (1 - sphere)
        level = float((volume * edge).sum() / edge.sum())
        offset = np.arange(size) - size // 2
        fall_off = np.sinc(offset / padded) ** 2  # what straight lines between samples cause
        window = sphere / (fall_off[:, None, None] * fall_off[:, None] * fall_off)
        inner = (volume - level) * window
        place = offset % padded
        channels = torch.zeros((padded, padded, padded // 2 + 1, 4), dtype=torch.complex64)
        z, y, x = np.meshgrid(offset, offset, offset, indexing="ij", sparse=True)
        for channel, moments in enumerate((inner, inner * z, inner * y, inner * x)):
            placed = np.zeros((padded,) * 3, dtype=np.float32)
            placed[np.ix_(place, place, place)] = moments
            transform = torch.fft.rfftn(torch.from_numpy(placed))
            channels[..., channel] = transform if channel == 0 else transform * (-2j * math.pi / size)
        return cls(size, torch.view_as_real(channels).flatten(-2).contiguous().to(device))

    def sample(self, wave: Float[Tensor, "... 3"], *, gradient: bool = True) -> Complex[Tensor, "... c"]:
        """The transform, and its gradient along z, y, x, at wave vectors in cycles a box: one or four channels."""
        size, half = self.grid.shape[1:3]
        points = wave.reshape(-1, 3)
        mirrored = points[:, 2] < 0  # F(-k) is the conjugate of F(k), and only kx >= 0 is kept
        flip = 1 - 2 * mirrored.to(points.dtype)
        place = points * (PADDING * flip)[:, None]
        low = place.floor()
        share = place - low
        z, y, x = low.to(torch.int32).unbind(1)
        flat = self.grid.reshape(-1, 8)
        if not gradient:
            flat = flat[:, :2].contiguous() if flat.stride(0) != 2 else flat
        found = torch.zeros((len(points), flat.shape[1]), dtype=points.dtype, device=points.device)
        plane = [torch.remainder(z + step, size) * (size * half) for step in (0, 1)]
        row = [torch.remainder(y + step, size) * half for step in (0, 1)]
        column = [x, (x + 1).clamp(max=half - 1)]
        part = [(1 - share[:, i], share[:, i]) for i in range(3)]
        for i in (0, 1):
            for j in (0, 1):
                weight, start = part[0][i] * part[1][j], plane[i] + row[j]
                for k in (0, 1):
                    corner = flat.index_select(0, start + column[k])
                    found.addcmul_(corner, (weight * part[2][k])[:, None])
        values = torch.view_as_complex(found.reshape(len(points), -1, 2))
        conjugate = torch.complex(values.real, values.imag * flip[:, None])
        # the derivative along the axes changes its sign with the wave vector
        if gradient:
            conjugate[:, 1:] *= flip[:, None]
        return conjugate.reshape(*wave.shape[:-1], -1)


def moved_back(
    volume: Float[np.ndarray, "d d d"], turn: Rotation, shift: Float[np.ndarray, " 3"] | None = None
) -> NDArray[np.float32]:
    """A map taken back from where a turn about its centre, and then a shift in voxels, put it: out(x) = in(R x + s)."""
    size = len(volume)
    band = Band.measured(size, None, size / 2)
    wave = band.wave @ torch.from_numpy(turn.inv().as_matrix().astype(np.float32))  # R k
    values = Reference.of(volume).sample(wave, gradient=False)[:, 0]
    if shift is not None:
        angle = wave @ torch.from_numpy(np.asarray(shift, dtype=np.float32)) * (2 * math.pi / size)
        values = values * torch.polar(torch.ones_like(angle), angle)
    return band.volume(values)


@dataclass(frozen=True, eq=False)
class Poses:
    """Where a reference was found in n boxes.

    Attributes
    ----------
    rotations
        n orientations from the reference to the box, acting on zyx vectors.
    shifts_px
        Of the reference's centre from the box's centre, zyx in voxels, shape (n, 3).
    score
        Normalised correlation inside the band and the wedge, -1 to 1, shape (n,).
    """

    rotations: Rotation
    shifts_px: NDArray[np.float64]
    score: NDArray[np.float64]


@dataclass(frozen=True)
class SearchPlan:
    """How finely and how far is searched."""

    rotations: int = 4608
    """Rotations of the grid over all orientations."""
    shift_px: float = 4.0
    """Largest shift along each axis in voxels."""
    shift_step_px: float = 2.0
    """Edge of the cubes of the body-centred grid of shifts in voxels."""
    screening: int = 576
    """Rotations with which all shifts are tried first, to see which shifts are worth all rotations."""
    shifts_kept: int = 24
    """Shifts tried with all rotations."""
    coarse: float = 10.0
    """Highest frequency of the grid search in cycles a box."""
    fine: float = 13.0
    """Highest frequency of the refinement in cycles a box."""
    candidates: int = 12
    """Grid poses that are refined for each box."""
    kept: int = 2
    """Of these, how many are refined in the whole band."""
    steps: int = 4
    """Levenberg–Marquardt steps in the whole band; before, half as many in the band of the grid search."""


def correlation_rows(reference: Reference, turn: Float[Tensor, "r 3 3"], band: Band) -> Float[Tensor, "r q"]:
    """Coefficients of the turned reference times the root of their weights, real and imaginary parts side by side."""
    parts = []
    for some in turn.split(max(1, (1 << 20) // max(len(band), 1))):
        parts.append(reference.sample(band.wave @ some, gradient=False)[..., 0] * band.weight.sqrt())
    return torch.view_as_real(torch.cat(parts)).flatten(1)


def turned_references(reference: Reference, rotations: Rotation, band: Band) -> Float[Tensor, "r q"]:
    """The rows of :func:`correlation_rows` scaled to length one inside the band and the wedge."""
    turn = torch.from_numpy(rotations.as_matrix().astype(np.float32)).to(band.wave.device)
    rows = correlation_rows(reference, turn, band)
    return rows / rows.norm(dim=1, keepdim=True).clamp(min=1e-20)


@dataclass(frozen=True, eq=False)
class Search:
    """A search made ready for many boxes: the turned references, the shifts and both bands."""

    plan: SearchPlan
    reference: Reference
    coarse: Band
    fine: Band
    rotations: Float[Tensor, "r 3 3"]
    neighbours: Int[Tensor, "r b"]
    rows: Float[Tensor, "r q"]
    screening: Float[Tensor, "v q"]
    shifts: Float[Tensor, "s 3"]

    @classmethod
    def prepare(cls, reference: Reference, band: Band, plan: SearchPlan, rotations: Rotation | None = None) -> Search:
        """Turn the reference in all the ways of the grid.

        Parameters
        ----------
        reference
            What is searched.
        band
            Measured coefficients of the boxes with their weights.
        plan
            How finely.
        rotations
            Orientations to try instead of the plan's grid.
        """
        device = str(reference.grid.device)
        band = band.to(device)
        grid = uniform_rotations(plan.rotations) if rotations is None else rotations
        coarse = band.within(plan.coarse)
        screening = uniform_rotations(plan.screening) if rotations is None else grid
        shifts = body_centred_grid(plan.shift_px, plan.shift_step_px) if plan.shift_px > 0 else np.zeros((1, 3))
        return cls(
            plan,
            reference,
            coarse,
            band.within(plan.fine),
            torch.from_numpy(grid.as_matrix().astype(np.float32)).to(device),
            torch.from_numpy(nearest_rotations(grid, _NEIGHBOURS)).to(device),
            turned_references(reference, grid, coarse),
            turned_references(reference, screening, coarse),
            torch.from_numpy(shifts.astype(np.float32)).to(device),
        )

    def __call__(self, boxes: Float[np.ndarray, "n d d d"]) -> Poses:
        """The best pose in every box; memory grows with n, so give a few tens at a time.

        Raises
        ------
        InputError
            When there is no box, or one holds values that are no numbers.
        """
        if not len(boxes) or not np.isfinite(boxes).all():
            raise InputError("expected boxes full of numbers to search in, got none, or some that hold NaN or infinity")
        given = torch.from_numpy(np.ascontiguousarray(boxes, dtype=np.float32)).to(self.rows.device)
        turn, shift = self.candidates(given)
        data = self.coarse.coefficients(given)
        turn, shift, _ = refine(self.reference, self.coarse, data, turn, shift, self.plan.steps // 2)
        data = self.fine.coefficients(given)
        score = correlation(self.reference, self.fine, data, turn, shift)
        best = score.topk(min(self.plan.kept, score.shape[1]), dim=1).indices
        turn, shift = _pick(turn, best), _pick(shift, best)
        turn, shift, score = refine(self.reference, self.fine, data, turn, shift, self.plan.steps)
        best = score.argmax(dim=1, keepdim=True)
        return Poses(
            Rotation.from_matrix(_pick(turn, best)[:, 0].cpu().double().numpy()),
            _pick(shift, best)[:, 0].cpu().double().numpy(),
            score.gather(1, best)[:, 0].cpu().double().numpy(),
        )

    def scores(self, boxes: Float[Tensor, "n d d d"]) -> tuple[Float[Tensor, "n r"], Float[Tensor, "n r 3"]]:
        """Best score over the shifts of every rotation of the grid, and that shift.

        Where the reference lies shows with few rotations; only the likeliest shifts are tried with all of them.
        """
        data = self.coarse.coefficients(boxes) * self.coarse.weight.sqrt()
        data = data / data.norm(dim=1, keepdim=True).clamp(min=1e-20)
        back = self.coarse.phases(-self.shifts)
        if self.plan.shifts_kept >= len(self.shifts):
            kept = torch.arange(len(self.shifts), device=data.device).expand(len(data), -1)
        else:
            screened = _products(data[:, None] * back, self.screening).amax(dim=2)
            kept = screened.topk(self.plan.shifts_kept, dim=1).indices
        score, which = _products(data[:, None] * back[kept], self.rows).max(dim=1)
        return score, self.shifts[kept.gather(1, which)]

    def candidates(self, boxes: Float[Tensor, "n d d d"]) -> tuple[Float[Tensor, "n c 3 3"], Float[Tensor, "n c 3"]]:
        """The best few poses of the grid in every box, no two of them neighbours: rotations and shifts."""
        score, shift = self.scores(boxes)
        around = score[:, self.neighbours].amax(dim=2) if self.neighbours.numel() else score
        tops = torch.where(score >= around, score, score - 2.0)  # others only when there are too few maxima
        best = tops.topk(min(self.plan.candidates, score.shape[1]), dim=1).indices
        return self.rotations[best], _pick(shift, best)


def _products(moved: Complex[Tensor, "n s p"], rows: Float[Tensor, "r q"]) -> Float[Tensor, "n s r"]:
    """Correlation of every moved box with every turned reference: real parts of complex products, as one matrix."""
    columns = torch.view_as_real(moved).flatten(2)
    return (columns.flatten(0, 1) @ rows.T).reshape(*columns.shape[:2], -1)


def _pick(values: Tensor, index: Int[Tensor, "n k"]) -> Tensor:
    shape = (*index.shape, *[1] * (values.ndim - 2))
    return values.gather(1, index.reshape(shape).expand(*index.shape, *values.shape[2:]))


def correlation(
    reference: Reference,
    band: Band,
    data: Complex[Tensor, "n p"],
    turn: Float[Tensor, "n c 3 3"],
    shift: Float[Tensor, "n c 3"],
) -> Float[Tensor, "n c"]:
    """Normalised correlation of every box with its c candidates inside the band and the wedge."""
    model = reference.sample(band.wave @ turn, gradient=False)[..., 0]
    model = model * band.phases(shift.flatten(0, 1)).reshape(model.shape)
    x = (data * band.weight)[:, None]
    lengths = (data * band.weight.sqrt()).norm(dim=1)[:, None] * (model * band.weight.sqrt()).norm(dim=2)
    return (x.conj() * model).sum(2).real / lengths.clamp(min=1e-20)


def refine(
    reference: Reference,
    band: Band,
    data: Complex[Tensor, "n p"],
    turn: Float[Tensor, "n c 3 3"],
    shift: Float[Tensor, "n c 3"],
    steps: int,
) -> tuple[Float[Tensor, "n c 3 3"], Float[Tensor, "n c 3"], Float[Tensor, "n c"]]:
    """Levenberg–Marquardt steps on rotation, shift and amplitude from every candidate.

    Minimises the weighted squared difference of box and turned, shifted, scaled reference inside the band. A step that
    does not raise the correlation is taken back and damped more.

    Parameters
    ----------
    reference, band
        What is searched, and where.
    data
        The boxes' coefficients in the band.
    turn, shift
        c candidates for each box.
    steps
        How many.

    Returns
    -------
    turn, shift, score
        Better candidates, and their normalised correlation.
    """
    n, c = shift.shape[:2]
    root = band.weight.sqrt()
    x = data * root
    x = (x / x.norm(dim=1, keepdim=True).clamp(min=1e-20)).repeat_interleave(c, 0)
    turn, shift = turn.reshape(-1, 3, 3), shift.reshape(-1, 3)
    model, jacobian = _model(reference, band, turn, shift)
    score = _correlation(x, model)
    damping = torch.full((n * c,), 1e-2, device=x.device)
    for _ in range(steps):
        step = _step(x, model, jacobian, damping)
        tried_turn, tried_shift = turn @ _small_rotation(step[:, :3]), shift + step[:, 3:6]
        tried_model, tried_jacobian = _model(reference, band, tried_turn, tried_shift)
        tried = _correlation(x, tried_model)
        better = tried > score
        turn = torch.where(better[:, None, None], tried_turn, turn)
        shift = torch.where(better[:, None], tried_shift, shift)
        model = torch.where(better[:, None], tried_model, model)
        jacobian = torch.where(better[:, None, None], tried_jacobian, jacobian)
        score = torch.where(better, tried, score)
        damping = torch.where(better, damping / 5, damping * 8).clamp(1e-6, 1e3)
    return turn.reshape(n, c, 3, 3), shift.reshape(n, c, 3), score.reshape(n, c)


def _model(
    reference: Reference, band: Band, turn: Float[Tensor, "m 3 3"], shift: Float[Tensor, "m 3"]
) -> tuple[Complex[Tensor, "m p"], Complex[Tensor, "m p 6"]]:
    """The weighted coefficients of a turned and shifted reference, and their derivatives by rotation and shift.

    The rotation is varied as R exp([w]), so that R⁻¹k moves by -w × R⁻¹k.
    """
    wave = band.wave @ turn  # R⁻¹ k
    sampled = reference.sample(wave)
    sampled *= (band.phases(shift) * band.weight.sqrt())[..., None]
    jacobian = torch.empty((*wave.shape[:2], 6), dtype=sampled.dtype, device=wave.device)
    for i, j, k in ((0, 1, 2), (1, 2, 0), (2, 0, 1)):  # the cross product of slope and wave vector
        torch.mul(sampled[..., 1 + j], wave[..., k], out=jacobian[..., i])
        jacobian[..., i].addcmul_(sampled[..., 1 + k], wave[..., j].to(sampled.dtype), value=-1)
    value = sampled[..., 0].contiguous()
    torch.mul(value[..., None], band.wave * (-2j * math.pi / band.box_px), out=jacobian[..., 3:])
    return value, jacobian


def _correlation(x: Complex[Tensor, "m p"], model: Complex[Tensor, "m p"]) -> Float[Tensor, " m"]:
    return _dot(x, model) / _dot(model, model).sqrt().clamp(min=1e-20)


def _dot(a: Complex[Tensor, "m p"], b: Complex[Tensor, "m p"]) -> Float[Tensor, " m"]:
    """Real part of the inner product, row by row; several times faster than on complex numbers."""
    rows = (torch.view_as_real(part).flatten(1) for part in (a, b))
    return torch.einsum("mq,mq->m", *rows)


def _step(
    x: Complex[Tensor, "m p"],
    model: Complex[Tensor, "m p"],
    jacobian: Complex[Tensor, "m p 6"],
    damping: Float[Tensor, " m"],
) -> Float[Tensor, "m 6"]:
    """One damped step of least squares; the amplitude is the seventh parameter."""
    amplitude = (_dot(model, x) / _dot(model, model).clamp(min=1e-30)).clamp(min=1e-12)
    columns = torch.cat([jacobian * amplitude[:, None, None], model[..., None]], dim=-1)
    real = torch.view_as_real(columns).movedim(-1, 2).flatten(1, 2)  # (m, 2p, 7)
    left = torch.view_as_real(x - amplitude[:, None] * model).flatten(1)
    normal = real.mT @ real
    towards = (real.mT @ left[..., None])[..., 0]
    scale = normal.diagonal(dim1=1, dim2=2).sqrt().clamp(min=1e-30)  # parameters have units of their own
    alike = normal / (scale[:, :, None] * scale[:, None, :])
    damped = alike + torch.diag_embed((damping[:, None] + 1e-6).expand_as(scale))
    step = (torch.linalg.solve(damped, towards / scale) / scale)[:, :6]
    # within half the reach of a straight line: 15° and two voxels
    longest = torch.stack([step[:, :3].norm(dim=1) / 0.26, step[:, 3:].norm(dim=1) / 2.0]).amax(0)
    return step / longest.clamp(min=1.0)[:, None]


def _small_rotation(vector: Float[Tensor, "m 3"]) -> Float[Tensor, "m 3 3"]:
    """Rotation matrices (of zyx vectors) of rotation vectors in rad."""
    angle = vector.norm(dim=1).clamp(min=1e-12)
    z, y, x = (vector / angle[:, None]).unbind(1)
    zero = torch.zeros_like(z)
    # the cross product of (z, y, x) components taken in this order is right-handed in them
    cross = torch.stack([zero, -x, y, x, zero, -z, -y, z, zero], dim=1).reshape(-1, 3, 3)
    sine, cosine = angle.sin()[:, None, None], angle.cos()[:, None, None]
    return torch.eye(3, device=vector.device) + sine * cross + (1 - cosine) * (cross @ cross)


@lru_cache(maxsize=8)
def _shell_numbers(box_px: int, axis: str) -> NDArray[np.int64]:
    """Number of the ring (radius, distance from the tilt axis) of every coefficient of ``rfftn``."""
    full, half = np.fft.fftfreq(box_px) * box_px, np.fft.rfftfreq(box_px) * box_px
    z, y, x = np.meshgrid(full, full, half, indexing="ij", sparse=True)
    across = np.hypot(z, x if axis == "y" else y)
    radius = np.sqrt(z**2 + y**2 + x**2)
    return (np.round(radius) * box_px + np.round(across / 2)).astype(np.int64)


def noise_power(boxes: Float[np.ndarray, "n d d d"], missing_wedge: MissingWedge) -> NDArray[np.float64]:
    """Power of the noise in boxes, mean over rings of equal frequency and equal distance from the tilt axis.

    Noise is most of what is in a box, so the boxes' own mean power is taken for it. Rings, because back-projected noise
    grows with the distance from the tilt axis.

    Returns
    -------
    NDArray[float64], shape (D, D, D // 2 + 1)
        Layout of ``rfftn``; unmeasured coefficients get the mean of their ring's measured ones, 1 where there is none.
    """
    size = boxes.shape[-1]
    power = np.zeros((size, size, size // 2 + 1))
    for box in boxes:
        power += np.abs(np.fft.rfftn(box)) ** 2
    ring, mask = _shell_numbers(size, missing_wedge.tilt_axis), missing_wedge.mask((size,) * 3)
    total = np.bincount(ring[mask], power[mask], ring.max() + 1)
    count = np.bincount(ring[mask], minlength=ring.max() + 1)
    mean = np.divide(total, count * len(boxes), out=np.ones_like(total), where=count > 0)
    return mean[ring]
