"""Augmentation of measured boxes that keeps their missing wedge where it is.

A rotated box has its wedge in a place where no tilt series has it, and a network learns that quickly. Only the mirrors
and 180° turns that map the measured region onto itself are safe (DESIGN: flips and turns that keep tilt axis and beam).
"""

from __future__ import annotations

from itertools import product

import torch
from jaxtyping import Float
from torch import Tensor

from tomotif.core.missing_wedge import MissingWedge

Flip = tuple[bool, bool, bool]


def wedge_safe_flips(missing_wedge: MissingWedge, *, mirrors: bool = False) -> list[Flip]:
    """Which combinations of flips along z, y, x map the measured region onto itself.

    Parameters
    ----------
    missing_wedge
        The measured tilt range.
    mirrors
        Also those that change the hand (an odd number of flips).

    Examples
    --------
    >>> len(wedge_safe_flips(MissingWedge(-60, 60))), len(wedge_safe_flips(MissingWedge(-60, 60), mirrors=True))
    (4, 8)
    >>> wedge_safe_flips(MissingWedge(-40, 60))  # nothing, and the 180° turn about y, the tilt axis
    [(False, False, False), (True, False, True)]
    """
    across = 2 if missing_wedge.tilt_axis == "y" else 1

    def is_safe(flip: Flip) -> bool:
        turns_tilt = flip[0] != flip[across]  # reverses the sign of the tilt angle
        return (mirrors or sum(flip) % 2 == 0) and (missing_wedge.is_symmetric or not turns_tilt)

    flips: list[Flip] = [(z, y, x) for z, y, x in product((False, True), repeat=3)]
    return [flip for flip in flips if is_safe(flip)]


def flip_boxes(boxes: Float[Tensor, "n 1 d d d"], flip: Flip) -> Float[Tensor, "n 1 d d d"]:
    """Flip boxes about their centre voxel d // 2.

    >>> x = torch.zeros(1, 1, 4, 4, 4); x[0, 0, 2, 2, 2] = 1; x[0, 0, 2, 2, 3] = 2
    >>> flip_boxes(x, (False, False, True))[0, 0, 2, 2].tolist()
    [0.0, 2.0, 1.0, 0.0]
    """
    axes = [axis for axis, flipped in zip((2, 3, 4), flip, strict=True) if flipped]
    if not axes:
        return boxes
    even = [axis for axis in axes if boxes.shape[axis] % 2 == 0]  # a plain flip would move their centre by one voxel
    return torch.roll(boxes.flip(axes), [1] * len(even), even) if even else boxes.flip(axes)


def augment(
    boxes: Float[Tensor, "n 1 d d d"], flips: list[Flip], max_shift_px: int, generator: torch.Generator
) -> Float[Tensor, "n 1 d d d"]:
    """Turn each part of a batch by a random safe flip and shift it by whole voxels (around the border).

    Parameters
    ----------
    boxes
        A batch; it is cut into as many parts as there are flips, so that the work is one flip a part.
    flips
        What :func:`wedge_safe_flips` allows.
    max_shift_px
        Largest shift along each axis in voxels.
    generator
        Decides flips and shifts.
    """
    parts = boxes.chunk(len(flips) * 2)
    turned = []
    for part in parts:
        flip = flips[int(torch.randint(len(flips), (), generator=generator))]
        shift = torch.randint(-max_shift_px, max_shift_px + 1, (3,), generator=generator).tolist()
        turned.append(torch.roll(flip_boxes(part, flip), shift, (2, 3, 4)))
    return torch.cat(turned)
