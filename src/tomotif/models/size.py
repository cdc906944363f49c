"""How large a network is: parameters, multiply-adds, receptive field."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from tomotif.models.autoencoder3d import Autoencoder
from tomotif.models.registry import Kind, build_model
from tomotif.models.spherical_power import SphericalPower


@dataclass(frozen=True)
class ModelSize:
    """What a network costs and sees at one box.

    Attributes
    ----------
    parameters
        Number of learned values.
    multiply_adds
        Of one box.
    receptive_field_px
        Edge in voxels of the part of the box that the middle of the last feature map sees; never more than the box.
    """

    parameters: int
    multiply_adds: int
    receptive_field_px: int


def model_size(name: str, box_px: int, n_classes: int, kind: Kind = "classifier") -> ModelSize:
    """Size of a registered network; the receptive field of an autoencoder is that of its encoder.

    Parameters
    ----------
    name, box_px, n_classes, kind
        As of :func:`~tomotif.models.build_model`.

    Examples
    --------
    >>> model_size("dsrf3d", 40, 23)
    ModelSize(parameters=33237559, multiply_adds=3184913920, receptive_field_px=16)
    """
    with torch.device("meta"):  # shapes alone: no memory, no arithmetic
        model = build_model(name, box_px, n_classes, kind).eval()
        with FlopCounterMode(display=False) as counter:
            model(torch.zeros(1, 1, box_px, box_px, box_px))
    parameters = sum(p.numel() for p in model.parameters())
    sees = model.encoder if isinstance(model, Autoencoder) else model
    return ModelSize(parameters, counter.get_total_flops() // 2, receptive_field(sees, box_px))


def receptive_field(model: nn.Module, box_px: int) -> int:
    """Edge in voxels of what the middle of the last feature map sees of a box.

    A feature map is what still has more than one voxel an edge. The model may lie on the meta device: its weights are
    not used but replaced by positive ones, and maxima by averages, so that nothing is missed that could have a say.

    Examples
    --------
    >>> receptive_field(nn.Sequential(nn.Conv3d(1, 1, 3), nn.MaxPool3d(2), nn.Conv3d(1, 1, 3)), 16)
    8
    """
    linear = averaging(deepcopy(model)).to_empty(device="cpu")
    maps: list[Tensor] = []
    for module in linear.modules():
        if isinstance(module, nn.Conv3d):
            nn.init.constant_(module.weight, 1 / module.weight[0].numel())
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        if not list(module.children()):
            module.register_forward_hook(lambda _module, _given, made: maps.append(made))
    box = torch.ones(1, 1, box_px, box_px, box_px, requires_grad=True)
    linear(box)
    last = next(made for made in reversed(maps) if made.ndim == 5 and min(made.shape[2:]) > 1)
    z, y, x = (edge // 2 for edge in last.shape[2:])
    (gradient,) = torch.autograd.grad(last[0, :, z, y, x].sum(), box)
    return int((gradient[0, 0].amax(dim=(1, 2)) > 0).sum())


class Silent(nn.Module):
    """Stands for rotation-invariant features, which see all of the box but make no feature maps."""

    def __init__(self, power: SphericalPower) -> None:
        super().__init__()
        self.shape = (power.centres, power.features)

    def forward(self, x: Tensor) -> Tensor:
        """Zeros in the shape of the features."""
        return x.new_zeros(len(x), *self.shape)


def averaging(module: nn.Module) -> nn.Module:
    """The network with averages for maxima, and nothing for what only scales or randomises feature maps."""
    if isinstance(module, nn.MaxPool3d):
        return nn.AvgPool3d(module.kernel_size, module.stride)
    if isinstance(module, nn.BatchNorm3d | nn.Dropout):
        return nn.Identity()
    if isinstance(module, SphericalPower):
        return Silent(module)
    for name, child in module.named_children():
        setattr(module, name, averaging(child))
    return module
