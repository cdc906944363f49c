"""CB3D: eight convolutions, pooled first within slices. The literal network, and a light one.

Che et al. 2018, arXiv 1707.04885, after C3D (Tran et al. 2015, ICCV). ``cb3d_gap`` has a quarter of the filters, batch
normalisation, and a global average in place of the hidden layers, so that it can be trained on a CPU.
"""

from __future__ import annotations

from torch import nn

from tomotif.models.dsrf3d import hidden_layers
from tomotif.models.registry import register
from tomotif.models.start import start_as_glorot

WIDTHS = (64, 128, 256, 512, 512)
"""Filters of the five stages."""


def trunk(widths: tuple[int, ...], *, normalised: bool = False) -> nn.Sequential:
    """All but the head: (n, 1, d, d, d) → (n, c, d // 16, e, e), where e is (d // 16 + 2) // 2."""
    first, second, third, fourth, fifth = widths

    def convolutions(channels_in: int, channels_out: int, count: int) -> list[nn.Module]:
        layers: list[nn.Module] = []
        for number in range(count):
            layers.append(nn.Conv3d(channels_out if number else channels_in, channels_out, 3, padding=1))
            layers += [nn.BatchNorm3d(channels_out)] if normalised else []
            layers.append(nn.ReLU())
        return layers

    return nn.Sequential(
        *convolutions(1, first, 1),
        nn.MaxPool3d((1, 2, 2)),
        *convolutions(first, second, 1),
        nn.MaxPool3d(2),
        *convolutions(second, third, 2),
        nn.MaxPool3d(2),
        *convolutions(third, fourth, 2),
        nn.MaxPool3d(2),
        *convolutions(fourth, fifth, 2),
        nn.ConstantPad3d((1, 1, 1, 1, 0, 0), 0.0),
        nn.MaxPool3d(2),
    )


@register("cb3d", source="Che et al. 2018, arXiv 1707.04885", box_multiple=8)
def cb3d(box_px: int, n_classes: int) -> nn.Module:
    """Build CB3D with its two hidden layers of 4096."""
    features = WIDTHS[-1] * (box_px // 16) * ((box_px // 16 + 2) // 2) ** 2
    literal = nn.Sequential(trunk(WIDTHS), hidden_layers(features, 4096, n_classes, dropout=0.5))
    return literal.apply(start_as_glorot)


@register("cb3d_gap", source="Che et al. 2018, arXiv 1707.04885; widths and head are tomotif's", box_multiple=8)
def cb3d_gap(box_px: int, n_classes: int) -> nn.Module:
    """Build CB3D with a quarter of the filters, batch normalisation, a global average and one linear layer."""
    widths = tuple(width // 4 for width in WIDTHS)
    return nn.Sequential(
        trunk(widths, normalised=True), nn.AdaptiveAvgPool3d(1), nn.Flatten(), nn.Linear(widths[-1], n_classes)
    )
