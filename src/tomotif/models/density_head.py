"""A second task for a classifier in training: to draw the particle in the middle, without its neighbours and noise.

A class is a word for a box; the density of the particle alone is thousands of numbers, and simulated training data know
it. Whoever has to draw the particle must tell it from its neighbours. The head is thrown away after training, so it
costs nothing in use. Auxiliary tasks: Caruana 1997, Machine Learning 28:41.
"""

from __future__ import annotations

from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.hooks import RemovableHandle

SMALLEST_EDGE = 4


class DensityHead(nn.Module):
    """Draws the density of the particle alone from the feature maps of a network, each map for itself.

    Parameters
    ----------
    model
        The network; what it makes on its way is listened to until :meth:`release`.
    box_px
        Edge of its boxes in voxels.

    Raises
    ------
    ValueError
        When the network has no cubic feature map of 4 voxels or more that is smaller than the box.
    """

    def __init__(self, model: nn.Module, box_px: int) -> None:
        super().__init__()
        found = feature_maps(model, box_px)
        if not found:
            raise ValueError("expected a cubic feature map smaller than the box in the network, found none")
        self._maps: dict[str, Tensor] = {}
        self._handles = [model.get_submodule(name).register_forward_hook(partial(self._keep, name)) for name in found]
        self.grid = box_px // 2
        self.names = list(found)
        self.draw = nn.ModuleList(
            nn.Conv3d(channels, max(self.grid // edge, 1) ** 3, 1) for channels, edge in found.values()
        )

    def _keep(self, name: str, module: nn.Module, given: object, made: Tensor) -> None:
        self._maps[name] = made

    def release(self) -> None:
        """Stop listening to the network."""
        for handle in self._handles:
            handle.remove()
        self._maps.clear()

    def loss(self, density: Float[Tensor, "n 1 d d d"]) -> Tensor:
        """Share of the density's variance that the drawings of the last batch leave unexplained, mean over maps."""
        losses = []
        for name, draw in zip(self.names, self.draw, strict=True):
            drawn = unfolded(draw(self._maps[name]))
            target = functional.adaptive_avg_pool3d(density, drawn.shape[-1])
            losses.append(functional.mse_loss(drawn, target / target.std().clamp_min(1e-6)))
        return torch.stack(losses).mean()


def unfolded(folded: Float[Tensor, "n c e e e"]) -> Float[Tensor, "n 1 d d d"]:
    """Volumes of e·k voxels from k³ channels of e voxels.

    >>> unfolded(torch.arange(8.0).reshape(1, 8, 1, 1, 1)).flatten().tolist()
    [0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0]
    """
    n, channels, edge = folded.shape[:3]
    k = round(channels ** (1 / 3))
    cells = folded.reshape(n, k, k, k, edge, edge, edge).permute(0, 4, 1, 5, 2, 6, 3)
    return cells.reshape(n, 1, edge * k, edge * k, edge * k)


def feature_maps(model: nn.Module, box_px: int) -> dict[str, tuple[int, int]]:
    """The last cubic map of each edge from 4 voxels to a quarter of the box, or else the smallest below the box.

    Gives channels and edge by the module's name.
    """
    last: dict[int, tuple[str, int]] = {}

    def note(name: str, module: nn.Module, given: object, made: object) -> None:
        if isinstance(made, Tensor) and made.ndim == 5 and len(set(made.shape[2:])) == 1:
            last[made.shape[2]] = (name, made.shape[1])

    handles: list[RemovableHandle] = [
        module.register_forward_hook(partial(note, name)) for name, module in model.named_modules() if name
    ]
    training = model.training
    with torch.inference_mode():
        model.eval()(torch.zeros(1, 1, box_px, box_px, box_px))
    model.train(training)
    for handle in handles:
        handle.remove()
    smaller = sorted((edge for edge in last if SMALLEST_EDGE <= edge < box_px), reverse=True)
    wanted = [edge for edge in smaller if edge <= box_px // 4] or smaller[-1:]
    return {last[edge][0]: (last[edge][1], edge) for edge in wanted}
