"""Galleries: what the members of a class or cluster look like."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tomotif.report.figures import bin_by_mean, central_slices, png, side_by_side, smooth, stretch
from tomotif.report.palette import Style

LONG, SHORT = (7, 3), (3, 2)  # members shown: the best ones, and some spread over the others
MEAN_OF = 2000  # boxes read for a mean at most
CHUNK = 256  # boxes in memory at once
LOW_PASS_PX = 1.0
THICKNESS = 3  # slices averaged


@dataclass(frozen=True)
class Member:
    """One particle's picture; ``spread`` when it is not one of the best."""

    image: str
    alt: str
    caption: str
    spread: bool


@dataclass(frozen=True)
class Group:
    """A class or cluster: its mean and some of its members, the best first."""

    style: Style
    count: int
    mean: str
    mean_alt: str
    mean_note: str
    members: list[Member]


def members_shown(order: NDArray[np.floating] | None, count: int, best: int, spread: int) -> NDArray[np.intp]:
    """Which members to show: the best ones, then some spread evenly over the rest of the ranking.

    >>> members_shown(np.arange(100.0), 100, 3, 2).tolist()
    [99, 98, 97, 65, 32]
    """
    ranking = np.arange(count) if order is None else np.argsort(-np.nan_to_num(order, nan=-np.inf), kind="stable")
    if count <= best + spread:
        return ranking.astype(np.intp)
    rest = np.linspace(best - 1, count, spread + 2)[1:-1].astype(np.intp)
    return np.concatenate([ranking[:best], ranking[rest]]).astype(np.intp)


def mean_box(stack: NDArray[np.floating], rows: NDArray[np.integer]) -> NDArray[np.float32]:
    """Mean of some boxes of a memory-mapped stack, shape (D, D, D), read in chunks."""
    total = np.zeros(stack.shape[1:], np.float64)
    for start in range(0, len(rows), CHUNK):
        total += np.asarray(stack[np.sort(rows[start : start + CHUNK])], np.float32).sum(axis=0)
    return (total / max(len(rows), 1)).astype(np.float32)


def box_picture(box: NDArray[np.floating], *, sigma_px: float = LOW_PASS_PX, thickness: int = THICKNESS) -> str:
    """Central xy slice of a box above its central xz slice, as one grey PNG with common contrast."""
    return png(box_image(box, sigma_px=sigma_px, thickness=thickness))


def box_image(
    box: NDArray[np.floating], *, sigma_px: float = LOW_PASS_PX, thickness: int = THICKNESS, factor: int = 1
) -> NDArray[np.uint8]:
    """Pixels of :func:`box_picture`.

    Parameters
    ----------
    box
        Densities zyx, shape (D, D, D).
    sigma_px
        Standard deviation of the low-pass in voxels.
    thickness
        Slices averaged.
    factor
        Voxels a pixel along each edge.

    Returns
    -------
    NDArray[uint8], shape (2 * (D // factor) + 1, D // factor)
    """
    images = [bin_by_mean(smooth(image, sigma_px), factor) for image in central_slices(box, thickness=thickness)]
    return side_by_side(list(stretch(np.stack(images), 1, 99.7)), down=True)


def group_gallery(
    style: Style,
    stack: NDArray[np.floating],
    rows: NDArray[np.integer],
    order: NDArray[np.floating] | None,
    *,
    order_label: str = "",
    shown: tuple[int, int] = LONG,
) -> Group:
    """The gallery of one class or cluster.

    Parameters
    ----------
    style
        Its name and colour.
    stack
        All boxes (n, D, D, D), memory-mapped.
    rows
        The stack's rows that belong to it.
    order
        Probability or score of each of these; the highest are shown first. None keeps their order.
    order_label
        What the number is.
    shown
        How many of the best members are shown, and how many spread over the rest.
    """
    used = rows if len(rows) <= MEAN_OF else rows[np.linspace(0, len(rows) - 1, MEAN_OF).astype(int)]
    members = []
    for place, i in enumerate(members_shown(order, len(rows), *shown)):
        caption = "" if order is None else f"{order[i]:.2f}"
        number = "" if order is None else f", {order_label} {caption}"
        picture = box_picture(np.asarray(stack[rows[i]], np.float32))
        members.append(
            Member(picture, f"central xy and xz slices of one {style.label}{number}", caption, place >= shown[0])
        )
    return Group(
        style=style,
        count=len(rows),
        mean=box_picture(mean_box(stack, used), sigma_px=0.5, thickness=1),
        mean_alt=f"central xy and xz slices of the unaligned mean of {len(used)} {style.label}",
        mean_note=f"mean of {len(used):,}",
        members=members,
    )
