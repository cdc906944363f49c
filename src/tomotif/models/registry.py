"""The registry of architectures: a builder function per name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from torch import nn

from tomotif.core.errors import InputError, UnknownNameError

Builder = Callable[[int, int], nn.Module]
Kind = Literal["classifier", "autoencoder"]
"""What a network is for, and so what it takes and gives."""


@dataclass(frozen=True)
class Architecture:
    """A network that can be built.

    Parameters
    ----------
    name
        Registry name.
    build
        Takes the box edge in voxels and the number of classes; of an autoencoder, the length of its code.
    source
        Citation.
    box_multiple
        The box edge in voxels must be a multiple of this.
    kind
        ``"classifier"`` or ``"autoencoder"``.
    """

    name: str
    build: Builder
    source: str
    box_multiple: int
    kind: Kind = "classifier"

    def takes(self, box_px: int) -> bool:
        """Whether the network can be built for boxes of this edge."""
        return box_px >= self.box_multiple and box_px % self.box_multiple == 0


_ARCHITECTURES: dict[str, Architecture] = {}


def register(name: str, *, source: str, box_multiple: int, kind: Kind = "classifier") -> Callable[[Builder], Builder]:
    """Register a builder function (box_px, n_classes) → network under a name.

    A classifier takes z-scored boxes, shape (n, 1, box_px, box_px, box_px), and gives logits, shape (n, n_classes). An
    autoencoder is a :class:`~tomotif.models.autoencoder3d.Autoencoder`.
    """

    def keep(build: Builder) -> Builder:
        _ARCHITECTURES[name] = Architecture(name, build, source, box_multiple, kind)
        return build

    return keep


def architecture_names(kind: Kind = "classifier") -> list[str]:
    """Names that :func:`build_model` knows."""
    return sorted(name for name, found in _ARCHITECTURES.items() if found.kind == kind)


def architecture(name: str, kind: Kind = "classifier") -> Architecture:
    """The architecture of this name; UnknownNameError lists near matches."""
    known = architecture_names(kind)
    if name not in known:
        raise UnknownNameError("model", name, known)
    return _ARCHITECTURES[name]


def build_model(name: str, box_px: int, n_classes: int, kind: Kind = "classifier") -> nn.Module:
    """Build a network with fresh weights.

    Parameters
    ----------
    name
        Registry name.
    box_px
        Edge of a box in voxels.
    n_classes
        Number of classes; of an autoencoder, the length of its code.
    kind
        What the network is for; one of another kind is not known.

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
    found = architecture(name, kind)
    if not found.takes(box_px):
        raise InputError(
            f"model {name!r} expected a box that is a multiple of {found.box_multiple} voxels, got {box_px}; "
            "extract with another --box-px"
        )
    return found.build(box_px, n_classes)
