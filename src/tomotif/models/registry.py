"""The registry of architectures: a builder function per name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

from tomotif.core.errors import InputError, UnknownNameError

Builder = Callable[[int, int], nn.Module]


@dataclass(frozen=True)
class Architecture:
    """A network that can be built.

    Parameters
    ----------
    name
        Registry name.
    build
        Takes the box edge in voxels and the number of classes.
    source
        Citation.
    box_multiple
        The box edge in voxels must be a multiple of this.
    """

    name: str
    build: Builder
    source: str
    box_multiple: int

    def takes(self, box_px: int) -> bool:
        """Whether the network can be built for boxes of this edge."""
        return box_px >= self.box_multiple and box_px % self.box_multiple == 0


_ARCHITECTURES: dict[str, Architecture] = {}


def register(name: str, *, source: str, box_multiple: int) -> Callable[[Builder], Builder]:
    """Register a builder function (box_px, n_classes) → network under a name.

    The network takes z-scored boxes, shape (n, 1, box_px, box_px, box_px), and gives logits, shape (n, n_classes).
    """

    def keep(build: Builder) -> Builder:
        _ARCHITECTURES[name] = Architecture(name, build, source, box_multiple)
        return build

    return keep


def architecture_names() -> list[str]:
    """Names that :func:`build_model` knows."""
    return sorted(_ARCHITECTURES)


def architecture(name: str) -> Architecture:
    """The architecture of this name; UnknownNameError lists near matches."""
    if name not in _ARCHITECTURES:
        raise UnknownNameError("model", name, _ARCHITECTURES)
    return _ARCHITECTURES[name]


def build_model(name: str, box_px: int, n_classes: int) -> nn.Module:
    """Build a network with fresh weights.

    Parameters
    ----------
    name
        Registry name.
    box_px
        Edge of a box in voxels.
    n_classes
        Number of classes.

    Raises
    ------
    UnknownNameError
        When no architecture has this name.
    InputError
        When the architecture cannot take boxes of this size.

    Examples
    --------
    >>> sum(p.numel() for p in build_model("dsrf3d", 40, 23).parameters())
    33237559
    """
    found = architecture(name)
    if not found.takes(box_px):
        raise InputError(
            f"model {name!r} expected a box that is a multiple of {found.box_multiple} voxels, got {box_px}; "
            "extract with another --box-px"
        )
    return found.build(box_px, n_classes)
