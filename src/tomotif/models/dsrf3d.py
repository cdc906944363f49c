"""DSRF3D, literally: a VGG-like 3-D network with small receptive fields.

Xu, Chai, Muthakana, Liang, Yang, Zeev-Ben-Mordehai, Xing 2017, Bioinformatics 33:i13.
"""

from __future__ import annotations

from torch import nn

from tomotif.models.registry import register


def two_convolutions(channels_in: int, channels_out: int) -> nn.Sequential:
    """Two 3³ convolutions with ReLU, then max-pooling by 2: (n, in, d, d, d) → (n, out, d/2, d/2, d/2)."""
    return nn.Sequential(
        nn.Conv3d(channels_in, channels_out, 3, padding=1),
        nn.ReLU(),
        nn.Conv3d(channels_out, channels_out, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool3d(2),
    )


@register("dsrf3d", source="Xu et al. 2017, Bioinformatics 33:i13", box_multiple=4)
def dsrf3d(box_px: int, n_classes: int) -> nn.Module:
    """Build DSRF3D: two conv pairs of 32 and 64 filters, two hidden layers of 512, no dropout."""
    return nn.Sequential(
        two_convolutions(1, 32),
        two_convolutions(32, 64),
        nn.Flatten(),
        nn.Linear(64 * (box_px // 4) ** 3, 512),
        nn.ReLU(),
        nn.Linear(512, 512),
        nn.ReLU(),
        nn.Linear(512, n_classes),
    )
