"""Where weights start before training."""

from __future__ import annotations

from torch import nn


def start_as_glorot(module: nn.Module) -> None:
    """Draw the weights of a layer as Glorot and Bengio 2010, AISTATS 9:249; its biases become 0.

    What the published networks, made with Keras, started from. PyTorch's own start is smaller: without batch
    normalisation hardly anything of a box reaches the last layer of a deep network.
    """
    if isinstance(module, nn.Conv3d | nn.Linear):
        nn.init.xavier_uniform_(module.weight)
        assert module.bias is not None
        nn.init.zeros_(module.bias)
