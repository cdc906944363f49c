"""autoencoder3d: a box through 32 numbers and back. The literal network.

Zeng et al. 2018, J Struct Biol 202:150: a box is written down in a short code that is to be enough to draw it again, so
boxes of one structure get codes near one another, and any code can be drawn.
"""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn

from tomotif.models.registry import build_model, register
from tomotif.models.start import start_as_glorot

CHANNELS = 32


class Autoencoder(nn.Module):
    """An encoder and a decoder.

    Parameters
    ----------
    encoder
        Boxes, shape (n, 1, d, d, d) → codes, shape (n, codes).
    decoder
        Codes → boxes.
    """

    def __init__(self, encoder: nn.Module, decoder: nn.Module) -> None:
        super().__init__()
        self.encoder, self.decoder = encoder, decoder

    def encode(self, boxes: Float[Tensor, "n 1 d d d"]) -> Float[Tensor, "n codes"]:
        """Codes of boxes."""
        return self.encoder(boxes)

    def decode(self, codes: Float[Tensor, "n codes"]) -> Float[Tensor, "n 1 d d d"]:
        """What codes stand for."""
        return self.decoder(codes)

    def forward(self, boxes: Float[Tensor, "n 1 d d d"]) -> Float[Tensor, "n 1 d d d"]:
        """Encode, and decode again."""
        return self.decode(self.encode(boxes))


def convolution(channels_in: int) -> list[nn.Module]:
    """A 3³ convolution with a ReLU."""
    return [nn.Conv3d(channels_in, CHANNELS, 3, padding=1), nn.ReLU()]


@register("autoencoder3d", source="Zeng et al. 2018, J Struct Biol 202:150", box_multiple=4, kind="autoencoder")
def autoencoder3d(box_px: int, codes: int) -> nn.Module:
    """Build the autoencoder: two convolutions, two poolings and one full layer each way.

    Weights start as those of Glorot and Bengio 2010, AISTATS 9:249. From PyTorch's own start the picture hardly depends
    on the code, while the first steps of Adam, as large as any, take thousands of inputs of the code's layer one way:
    most of its ReLUs are dead after three steps, sometimes all.
    """
    inner = box_px // 4
    flat = CHANNELS * inner**3
    encoder = nn.Sequential(
        *convolution(1),
        nn.MaxPool3d(2),
        *convolution(CHANNELS),
        nn.MaxPool3d(2),
        nn.Flatten(),
        nn.Linear(flat, codes),
        nn.ReLU(),
    )
    decoder = nn.Sequential(
        nn.Linear(codes, flat),
        nn.ReLU(),
        nn.Unflatten(1, (CHANNELS, inner, inner, inner)),
        nn.Upsample(scale_factor=2),
        *convolution(CHANNELS),
        nn.Upsample(scale_factor=2),
        *convolution(CHANNELS),
        nn.Conv3d(CHANNELS, 1, 3, padding=1),
    )
    return Autoencoder(encoder, decoder).apply(start_as_glorot)


def build_autoencoder(name: str, box_px: int, codes: int) -> Autoencoder:
    """Build an autoencoder with fresh weights; parameters and errors as of :func:`~tomotif.models.build_model`.

    Examples
    --------
    >>> sum(p.numel() for p in build_autoencoder("autoencoder3d", 32, 32).parameters())
    1149793
    """
    model = build_model(name, box_px, codes, kind="autoencoder")
    assert isinstance(model, Autoencoder)
    return model
