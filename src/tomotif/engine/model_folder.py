"""Model folders: ``model.safetensors`` (weights) and ``model.json`` (all that is needed to use them).

Beside them ``known.safetensors``: where the network places particles of the classes that it knows.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Literal, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from tomotif.core.errors import InputError
from tomotif.core.settings import Settings
from tomotif.core.subtomograms import Subtomograms
from tomotif.io.files import read_json, replacing, write_json
from tomotif.io.run_folder import digest
from tomotif.models import build_model

WEIGHTS = "model.safetensors"
CARD = "model.json"
KNOWN = "known.safetensors"
WIDEST = 4096
"""Width of an embedding up to which particles are compared by it: covariances grow with its square."""

Network = TypeVar("Network", bound=nn.Module)


class ModelCard(Settings):
    """What a trained network is and what it takes."""

    architecture: str
    """Registry name of the network."""
    classes: tuple[str, ...]
    """Class names in the order of the logits."""
    box_px: int
    """Edge of a box in voxels."""
    voxel_size: float
    """Edge of a voxel in Å."""
    normalisation: Literal["z-score per box, bright"] = "z-score per box, bright"
    """What the boxes must be."""
    validation_accuracy: float | None = None
    """Fraction of validation particles named correctly."""
    temperature: float = 1.0
    """What logits are divided by before the softmax, so that probabilities are honest."""
    training: dict[str, bool | int | float | str | None] = Field(default_factory=dict)
    """Settings of the training run."""
    int8_agreement: float | None = None
    """Share of boxes that the network in 8-bit integers gives the same class, where there is one."""
    about: str = ""
    """What it is for, in a line."""
    scores: dict[str, float] = Field(default_factory=dict)
    """What it reached on data that it has not seen."""
    limits: tuple[str, ...] = ()
    """Where not to trust it."""
    weights_blake2: str = ""
    """Hash of the weight file."""

    def check_fits(self, subtomograms: Subtomograms) -> None:
        """Raise InputError when these boxes are not what the network was trained on."""
        if subtomograms.box_px != self.box_px:
            raise InputError(
                f"the model expects boxes of {self.box_px} voxels, got {subtomograms.box_px}; "
                f"extract with --box-px {self.box_px}"
            )
        if abs(subtomograms.voxel_size / self.voxel_size - 1) > 0.02:
            raise InputError(
                f"the model expects voxels of {self.voxel_size:g} Å, got {subtomograms.voxel_size:g} Å; "
                f"extract with --output-voxel-size {self.voxel_size:g}"
            )


@dataclass(frozen=True, eq=False)
class Known:
    """Where a network places particles of its classes: what new structures are told by.

    Attributes
    ----------
    learned, learned_class
        Embeddings (n, f) of particles that were learned from, and the index of the class of each.
    held, held_class
        The same of particles that were not.
    """

    learned: NDArray[np.float32]
    learned_class: NDArray[np.int64]
    held: NDArray[np.float32]
    held_class: NDArray[np.int64]

    def save(self, folder: Path) -> None:
        """Write into a model folder, embeddings as float16."""
        folder.mkdir(parents=True, exist_ok=True)
        tensors = {field.name: torch.from_numpy(getattr(self, field.name)) for field in fields(self)}
        with replacing(folder / KNOWN) as part:
            save_file({name: x.half() if x.is_floating_point() else x for name, x in tensors.items()}, part)

    @classmethod
    def load(cls, folder: Path) -> Known:
        """Read from a model folder.

        See :func:`check_comparable` for whether particles can be compared with these.

        Raises
        ------
        InputError
            When it is not there or cannot be read.
        """
        try:
            found = load_file(folder / KNOWN)
            return cls(**{f.name: full_precision(found[f.name]).numpy() for f in fields(cls)})
        except (OSError, KeyError, SafetensorError) as error:
            raise InputError(
                f"expected {KNOWN} in the model folder {folder}, got none that can be read; train the model again"
            ) from error


def full_precision(tensor: Tensor) -> Tensor:
    """Floats as float32, anything else as it is."""
    return tensor.float() if tensor.is_floating_point() else tensor


def last_layer(model: nn.Module) -> tuple[str, nn.Linear]:
    """Name and module of a network's last linear layer, which makes logits from the embedding."""
    return [(name, module) for name, module in model.named_modules() if isinstance(module, nn.Linear)][-1]


def save_model(folder: Path, model: nn.Module, card: ModelCard, *, half: bool = False) -> None:
    """Write a model folder; the card, which names the weights' hash, comes last.

    Parameters
    ----------
    folder, model, card
        Where, and what.
    half
        Keep the weights of convolutions and linear layers as float16, which halves the file.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    if half:  # not the statistics of normalisations, which may be too small for it
        tensors = {name: x.half() if x.is_floating_point() and x.ndim > 1 else x for name, x in tensors.items()}
    with replacing(folder / WEIGHTS) as part:
        save_file(tensors, part)
    write_card(folder, card.model_copy(update={"weights_blake2": digest(folder / WEIGHTS)}))


def write_card(folder: Path, card: ModelCard) -> None:
    """Write ``model.json``."""
    write_json(folder / CARD, card.model_dump(mode="json"))


def find_model_folder(path: Path) -> Path:
    """The model folder itself: ``RUN/model`` is found from ``RUN``."""
    return path / "model" if (path / "model" / CARD).exists() else path


def read_card(folder: Path) -> ModelCard:
    """Read and check ``model.json``.

    Raises
    ------
    InputError
        When it is missing or not a model card of ours.
    """
    path = folder / CARD
    if not path.exists():
        raise InputError(
            f"expected a model folder with {CARD} at {folder}, found none; give the folder of a training run"
        )
    try:
        return ModelCard.model_validate(read_json(path))
    except (ValidationError, ValueError) as error:
        first = str(error).splitlines()[0]
        raise InputError(
            f"expected a model card in {path}, got one that does not read ({first}); train again"
        ) from error


def load_model(folder: Path) -> tuple[nn.Module, ModelCard]:
    """Read a model folder, in evaluation mode.

    Raises
    ------
    InputError
        When a file is missing, or the weights are not the ones the card names.
    """
    card = read_card(folder)
    return with_weights(build_model(card.architecture, card.box_px, len(card.classes)), folder, card), card


def check_comparable(folder: Path) -> None:
    """Raise InputError when the embedding of a model folder's network is too wide to compare particles by it."""
    width = last_layer(load_model(folder)[0])[1].in_features
    if width > WIDEST:
        raise InputError(
            f"expected a network whose last layer takes at most {WIDEST:,} values to compare particles by them, got "
            f"{width:,} in {folder}; train another network, or take --layer logits where there is that choice"
        )


def with_weights(model: Network, folder: Path, card: ModelCard) -> Network:
    """A network with the weights of a model folder, in evaluation mode.

    Parameters
    ----------
    model
        The network that the card describes.
    folder, card
        The model folder, and what its card says.

    Raises
    ------
    InputError
        When the weights are missing, or are not the ones the card names.
    """
    weights = folder / WEIGHTS
    if not weights.exists():
        raise InputError(f"expected the weights at {weights}, found none; copy the whole model folder or train again")
    if digest(weights) != card.weights_blake2:
        raise InputError(
            f"expected {weights} to be what {CARD} describes, got other content (its hash differs); "
            "the weights were changed or damaged: copy the model folder again or train again"
        )
    try:
        model.load_state_dict(load_file(weights))
    except (RuntimeError, SafetensorError) as error:
        raise InputError(f"expected weights of {card.architecture!r} in {weights}, got others; train again") from error
    model.eval()
    return model
