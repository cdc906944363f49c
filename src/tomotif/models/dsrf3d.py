"""DSRF3D and DSRF3D-v2, literally: VGG-like 3-D networks with small receptive fields.

Xu, Chai, Muthakana, Liang, Yang, Zeev-Ben-Mordehai, Xing 2017, Bioinformatics 33:i13 (DSRF3D); Che et al. 2018,
arXiv 1707.04885 (DSRF3D-v2).
"""

from __future__ import annotations

from torch import nn

from tomotif.models.registry import register
from tomotif.models.start import start_as_glorot


def two_convolutions(channels_in: int, channels_out: int) -> nn.Sequential:
    """Two 3³ convolutions with ReLU, then max-pooling by 2: (n, in, d, d, d) → (n, out, d/2, d/2, d/2)."""
    return nn.Sequential(
        nn.Conv3d(channels_in, channels_out, 3, padding=1),
        nn.ReLU(),
        nn.Conv3d(channels_out, channels_out, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool3d(2),
    )


def hidden_layers(features: int, width: int, n_classes: int, *, dropout: float = 0.0) -> nn.Sequential:
    """Two hidden layers with ReLU (and dropout), then the logits."""
    layers: list[nn.Module] = []
    for inside in (features, width):
        layers += [nn.Linear(inside, width), nn.ReLU(), *([nn.Dropout(dropout)] if dropout else [])]
    return nn.Sequential(nn.Flatten(), *layers, nn.Linear(width, n_classes))


@register("dsrf3d", source="Xu et al. 2017, Bioinformatics 33:i13", box_multiple=4)
def dsrf3d(box_px: int, n_classes: int) -> nn.Module:
    """Build DSRF3D: two conv pairs of 32 and 64 filters, two hidden layers of 512, no dropout."""
    return nn.Sequential(
        two_convolutions(1, 32),
        two_convolutions(32, 64),
        hidden_layers(64 * (box_px // 4) ** 3, 512, n_classes),
    ).apply(start_as_glorot)


@register("dsrf3d_v2", source="Che et al. 2018, arXiv 1707.04885", box_multiple=8)
def dsrf3d_v2(box_px: int, n_classes: int) -> nn.Module:
    """Build DSRF3D-v2: a third conv pair of 128 filters, hidden layers of 1024 with dropout."""
    return nn.Sequential(
        two_convolutions(1, 32),
        two_convolutions(32, 64),
        two_convolutions(64, 128),
        hidden_layers(128 * (box_px // 8) ** 3, 1024, n_classes, dropout=0.7),
    ).apply(start_as_glorot)
