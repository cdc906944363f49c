"""Patterns without labels: subtomograms → autoencoder → codes → k-means → a picture and the members of every pattern.

Zeng et al. 2018, J Struct Biol 202:150: an autoencoder writes each box down in 32 numbers; k-means groups these codes,
and the decoder draws the centre of each group, which is a picture without noise. Not here: how boxes are cut and turned
(pick, extract, normalise), the network (models), the training loop (engine.train), what a pattern may be.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from pydantic import Field, ValidationError
from torch import Tensor
from torch.utils.data import DataLoader

from tomotif.core import InputError, Particles, Progress, Settings, Subtomograms
from tomotif.data.batches import BoxBatches, EpochBatches, loader
from tomotif.data.splits import split_by_tomogram
from tomotif.engine.model_folder import CARD, ModelCard, save_model, with_weights
from tomotif.engine.predict import Predictor, openvino_graph, predict_boxes, running
from tomotif.engine.train import Objective, TrainSettings, fit
from tomotif.io.files import read_json, replacing
from tomotif.models.autoencoder3d import Autoencoder, build_autoencoder
from tomotif.ops.clustering import clusters_of

DEGENERATE = 1e-4
"""Pictures that vary by less than this share of the boxes' variance say nothing about the boxes."""
_PART = 32
"""Boxes whose gradients are computed at once: 128 boxes of 32³ would take 3.4 GB and more time than four times 32."""
CHECKED_BOXES = 512
"""Largest number of boxes that a trained autoencoder is checked with."""

Scale = Literal["tomogram", "box"]
Scales = Mapping[str, tuple[float, float]]
"""Of every tomogram by name: the bright density that becomes 0, and how much of it becomes 1."""


class AutoencoderSettings(TrainSettings):
    """Settings of the autoencoder and its training; the published ones by default."""

    model: str = "autoencoder3d"
    """Network; `tomotif models` lists them."""
    codes: int = Field(default=32, ge=1)
    """Length of a code."""
    code_penalty: float = Field(default=1e-4, ge=0)
    """Weight of the sum of a code's absolute values beside the mean squared error of the picture."""
    scale: Scale = "tomogram"
    """Bring boxes to one scale for each 'tomogram', which keeps what is dense dense, or each 'box' to its own."""
    validation_fraction: float = Field(default=0.15, gt=0, lt=1)
    """Fraction of the particles kept for validation: whole tomograms, or at random when there is one tomogram."""
    epochs: int = Field(default=100, ge=1)
    """Largest number of passes over the training particles."""
    batch_size: int = Field(default=128, ge=1)
    """Particles a step."""
    learning_rate: float = Field(default=1e-3, gt=0)
    """Learning rate of Adam, which stays."""
    weight_decay: float = Field(default=0.0, ge=0)
    """Weight decay, decoupled from the rate's adaptation; the published training has none."""
    patience: int = Field(default=20, ge=1)
    """Stop when the validation loss has not improved for this many epochs."""


class EncodeSettings(Settings):
    """How boxes go through a trained encoder."""

    runtime: Literal["openvino", "torch"] = "openvino"
    """What runs the network: 'openvino' (fast on CPUs) or 'torch' (GPU when there is one)."""
    batch_size: int = Field(default=32, ge=1)
    """Boxes a batch."""
    shard_size: int = Field(default=4096, ge=1)
    """Boxes a shard; a killed run repeats at most one shard."""


class CodeClusterSettings(EncodeSettings):
    """How patterns are found with a trained autoencoder."""

    patterns: int = Field(default=100, ge=2)
    """Number of clusters of k-means."""
    seed: int = 0
    """Seed of k-means."""


class AutoencoderCard(ModelCard):
    """What a trained autoencoder is and what it takes."""

    classes: tuple[str, ...] = ()
    """None."""
    normalisation: Literal["one scale per tomogram, bright", "z-score per box, bright"]  # type: ignore[assignment]
    """What the boxes must be."""
    codes: int
    """Length of a code."""
    scales: dict[str, tuple[float, float]] = Field(default_factory=dict)
    """Of every tomogram in training: the bright density that became 0, and how much of it became 1."""

    @property
    def scale(self) -> Scale:
        """As of :class:`AutoencoderSettings`."""
        return "tomogram" if self.normalisation.startswith("one scale") else "box"


# ------------------------------------------------------------------------------------------------ one scale


@dataclass(frozen=True, eq=False)
class ScaledSubtomograms(Subtomograms):
    """Subtomograms whose boxes are brought to other scales as they are read.

    Parameters
    ----------
    factor, offset
        Of every box, shape (n,): what it is multiplied by, and what is added then.
    """

    factor: NDArray[np.float32]
    offset: NDArray[np.float32]

    def boxes(self, rows: slice | NDArray[np.integer]) -> NDArray[np.float32]:
        """The boxes of these rows, shape (k, D, D, D), read from disk now."""
        column = (rows, None, None, None)
        return super().boxes(rows) * self.factor[column] + self.offset[column]


def tomogram_scales(particles: Particles) -> dict[str, tuple[float, float]]:
    """Median of the boxes' means, and median of their deviations, of every tomogram: gold beads do not decide them.

    Parameters
    ----------
    particles
        With the columns ``mean`` and ``deviation`` of an extraction.

    Raises
    ------
    InputError
        When the columns are missing, or most boxes of a tomogram are constant.
    """
    if "mean" not in particles or "deviation" not in particles:
        raise InputError(
            "expected the columns mean and deviation of an extraction, to bring the boxes of a tomogram to one scale, "
            "found none; extract the boxes with tomotif, or train with --scale box"
        )
    table = particles.columns[["mean", "deviation"]].astype(float).groupby(particles.tomogram.astype(str)).median()
    scales = {str(name): (float(row["mean"]), float(row["deviation"])) for name, row in table.iterrows()}
    for name, (_, deviation) in scales.items():
        if not deviation > 0:
            raise InputError(
                f"expected boxes of some contrast in {name}, got a median deviation of {deviation:g}; leave out "
                "particles in regions of constant value"
            )
    return scales


def to_one_scale(subtomograms: Subtomograms, scales: Scales) -> ScaledSubtomograms:
    """The boxes with their z-score undone and the scale of their tomogram applied instead.

    Parameters
    ----------
    subtomograms
        n z-scored boxes with the columns ``mean`` and ``deviation``.
    scales
        Of every tomogram.
    """
    of_each = np.array([scales[name] for name in subtomograms.particles.tomogram.astype(str)])
    mean, deviation = (subtomograms.particles[name].to_numpy(dtype=np.float64) for name in ("mean", "deviation"))
    return ScaledSubtomograms(
        subtomograms.particles,
        subtomograms.stack,
        subtomograms.voxel_size,
        subtomograms.missing_wedge,
        factor=(deviation / of_each[:, 1]).astype(np.float32),
        offset=((mean - of_each[:, 0]) / of_each[:, 1]).astype(np.float32),
    )


# ------------------------------------------------------------------------------------------------ training


class Reconstruction(Objective):
    """Mean squared error of the pictures, and the sum of a code's absolute values.

    A step's gradient is summed over parts of its batch, which is the gradient of the whole.
    """

    model: Autoencoder
    settings: AutoencoderSettings

    def __init__(self, model: Autoencoder, settings: AutoencoderSettings) -> None:
        super().__init__(model, settings)
        self.automatic_optimization = False  # which takes one backward pass a step

    def configure_optimizers(self) -> dict[str, Any]:
        """AdamW at a constant rate, which without weight decay is Adam (Kingma and Ba 2015, ICLR)."""
        rate, decay = self.settings.learning_rate, self.settings.weight_decay
        return {"optimizer": torch.optim.AdamW(self.parameters(), lr=rate, weight_decay=decay)}

    def losses(self, boxes: Tensor) -> tuple[Tensor, Tensor]:
        """Squared error a voxel, and the whole loss: means over the batch."""
        code = self.model.encode(boxes)
        error = torch.nn.functional.mse_loss(self.model.decode(code), boxes)
        return error, error + self.settings.code_penalty * code.abs().sum(dim=1).mean()

    def training_step(self, batch: tuple[Tensor, ...], index: int) -> None:
        """Learn from one batch."""
        boxes = batch[0]
        optimiser = self.optimizers()
        optimiser.zero_grad()
        for part in boxes.split(_PART):
            loss = self.losses(part)[1]
            self.manual_backward(loss * len(part) / len(boxes))
            self.log("train_loss", loss.detach(), on_step=False, on_epoch=True, prog_bar=True, batch_size=len(part))
        optimiser.step()

    def validation_step(self, batch: tuple[Tensor, ...], index: int) -> None:
        """Loss and squared error of one batch."""
        boxes = batch[0]
        error, loss = self.losses(boxes)
        for name, value in (("val_loss", loss), ("val_error", error)):
            self.log(name, value, prog_bar=True, batch_size=len(boxes))


def train_autoencoder(
    subtomograms: Subtomograms, settings: AutoencoderSettings, folder: Path, *, progress: bool = True
) -> AutoencoderCard:
    """Train an autoencoder; no labels are involved.

    Parameters
    ----------
    subtomograms
        n boxes, best in their normal pose.
    settings
        Network and training.
    folder
        Gets ``model/``, ``history.csv`` and checkpoints; a killed run continues from them.
    progress
        Show a progress bar.

    Returns
    -------
    AutoencoderCard
        The card of ``folder / "model"``. Its scores: ``val_error``, the squared error a voxel; ``live_codes``, how many
        values of the code differ between boxes; ``picture_variation``, see :func:`check_pictures`.

    Raises
    ------
    InputError, UnknownNameError
        When there are fewer than two particles, the network is unknown or does not take these boxes, the boxes cannot
        be brought to one scale, or the autoencoder that was learned draws the same picture whatever the box.
    """
    scales = tomogram_scales(subtomograms.particles) if settings.scale == "tomogram" else {}
    given = to_one_scale(subtomograms, scales) if scales else subtomograms
    rows, held = split_by_tomogram(
        subtomograms.particles, settings.validation_fraction, np.random.default_rng(settings.seed)
    )
    with torch.random.fork_rng():
        torch.manual_seed(settings.seed)
        model = build_autoencoder(settings.model, subtomograms.box_px, settings.codes)
    model = model.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]  # stubs lack 3-D
    batches = BoxBatches(given, np.zeros(len(given), dtype=np.int64), flips=[])
    metrics = fit(
        Reconstruction(model, settings),
        loader(batches, EpochBatches(rows, settings.batch_size, seed=settings.seed)),
        loader(batches, EpochBatches(held, _PART, shuffle=False)),
        settings,
        folder,
        progress=progress,
    )
    some = np.random.default_rng(settings.seed).permutation(len(given))[:CHECKED_BOXES]
    scores = check_pictures(model, loader(batches, EpochBatches(np.sort(some), _PART, shuffle=False)))
    training: dict[str, Any] = {**settings.model_dump(mode="json"), "epochs_run": metrics["epochs"]}
    card = AutoencoderCard(
        architecture=settings.model,
        box_px=subtomograms.box_px,
        voxel_size=subtomograms.voxel_size,
        normalisation="one scale per tomogram, bright" if scales else "z-score per box, bright",
        codes=settings.codes,
        scales=scales,
        scores={"val_error": round(metrics["val_error"], 6), **scores},
        training={**training, "particles": len(rows), "validation_particles": len(held)},
    )
    save_model(folder / "model", model, card)
    return read_autoencoder_card(folder / "model")


@torch.inference_mode()
def check_pictures(model: Autoencoder, batches: DataLoader[tuple[Tensor, ...]]) -> dict[str, float]:
    """Whether what an autoencoder draws follows the boxes it is given.

    A code whose ReLUs are all dead stays that way, and a penalty that outweighs what the code explains drives it there:
    then every box gives the mean of all, and k-means would group rounding errors.

    Parameters
    ----------
    model
        Trained autoencoder.
    batches
        Boxes as in training, at least two.

    Returns
    -------
    dict
        ``live_codes``, how many values of the code differ between boxes, and ``picture_variation``, the variance
        between pictures as a share of that between boxes, both as means over voxels.

    Raises
    ------
    InputError
        When the pictures are all the same.
    """
    device = next(model.parameters()).device
    count, sums = 0, torch.zeros(4, 1, dtype=torch.float64, device=device)
    codes = []
    for boxes, *_ in batches:
        box = boxes.to(device)
        code = model.encode(box)
        both = torch.stack([box.flatten(1), model.decode(code).flatten(1)]).double()
        sums = sums + torch.cat([both.sum(dim=1), both.square().sum(dim=1)])
        count += len(box)
        codes.append(code.cpu())
    mean, square = (sums / count).chunk(2)
    of_boxes, of_pictures = (square - mean**2).clamp(min=0).mean(dim=1).tolist()
    live = int((np.ptp(torch.cat(codes).numpy(), axis=0) > 0).sum())
    variation = of_pictures / of_boxes if of_boxes > 0 else 0.0
    if not live or not variation > DEGENERATE:
        raise InputError(
            f"expected an autoencoder whose pictures follow the boxes, got one that draws the same picture for all "
            f"{count} boxes it was checked with (pictures vary by {variation:.1e} of what boxes vary, {live} of "
            f"{codes[0].shape[1]} values of the code are alive); train with another seed, a lower code "
            "penalty or learning rate or for more epochs, and see that the boxes are not empty"
        )
    return {"live_codes": float(live), "picture_variation": round(variation, 6)}


def read_autoencoder_card(folder: Path) -> AutoencoderCard:
    """Read and check the ``model.json`` of an autoencoder.

    Raises
    ------
    InputError
        When it is missing or is none of an autoencoder.
    """
    path = folder / CARD
    if not path.exists():
        raise InputError(f"expected an autoencoder's folder with {CARD} at {folder}, found none; train one first")
    try:
        return AutoencoderCard.model_validate(read_json(path))
    except (ValidationError, ValueError) as error:
        first = str(error).splitlines()[0]
        raise InputError(
            f"expected the card of an autoencoder in {path}, got another ({first}); give the folder of one, or train"
        ) from error


def load_autoencoder(folder: Path) -> tuple[Autoencoder, AutoencoderCard]:
    """Read a model folder that :func:`train_autoencoder` wrote, in evaluation mode.

    Raises
    ------
    InputError
        When a file is missing, or the weights are not the ones the card names.
    """
    card = read_autoencoder_card(folder)
    return with_weights(build_autoencoder(card.architecture, card.box_px, card.codes), folder, card), card


# ------------------------------------------------------------------------------------------------ codes and pictures


def encode(
    subtomograms: Subtomograms,
    model: Path,
    settings: EncodeSettings,
    work: Path,
    *,
    progress: Progress | None = None,
) -> Float[np.ndarray, "n codes"]:
    """Codes of all boxes, read and written shard by shard.

    Parameters
    ----------
    subtomograms
        n boxes.
    model
        Model folder.
    settings
        Runtime, batches, shards.
    work
        Folder for the shards' results, which a killed run continues from.
    progress
        Called with (boxes done, boxes).

    Returns
    -------
    NDArray[float32], shape (n, codes)

    Raises
    ------
    InputError
        When the boxes are not what the autoencoder was trained on.
    """
    network, card = load_autoencoder(model)
    card.check_fits(subtomograms)
    given = as_trained(subtomograms, card)
    predict = code_predictor(network, card.box_px, settings)
    work.mkdir(parents=True, exist_ok=True)
    codes = np.empty((len(given), card.codes), dtype=np.float32)
    for start in range(0, len(given), settings.shard_size):
        shard, path = slice(start, min(start + settings.shard_size, len(given))), work / f"{start:010d}.npy"
        if not path.exists():
            with replacing(path) as part, part.open("wb") as file:
                np.save(file, codes_of(given, shard, predict, settings.batch_size), allow_pickle=False)
        codes[shard] = np.load(path, allow_pickle=False)
        if progress is not None:
            progress(shard.stop, len(given))
    return codes


def as_trained(subtomograms: Subtomograms, card: AutoencoderCard) -> Subtomograms:
    """The boxes at the scale of the training: that of then for tomograms that were in it, one of their own for others.

    So a subset of the training particles gets the codes that it had among all.
    """
    if card.scale == "box":
        return subtomograms
    particles = subtomograms.particles
    others = particles.take(~np.isin(particles.tomogram.astype(str), list(card.scales)))
    return to_one_scale(subtomograms, {**tomogram_scales(others), **card.scales})


def code_predictor(network: Autoencoder, box_px: int, settings: EncodeSettings) -> Predictor:
    """What makes codes of a batch of boxes (batch_size, 1, D, D, D)."""
    if settings.runtime == "openvino":
        run = running(openvino_graph(network.encoder, (settings.batch_size, 1, *(box_px,) * 3)))
        return lambda boxes: run(boxes)[0]
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    encoder = network.encoder.to(device)

    @torch.inference_mode()
    def predict(boxes: NDArray[np.float32]) -> NDArray[np.float32]:
        return encoder(torch.from_numpy(boxes).to(device)).float().cpu().numpy()

    return predict


def codes_of(
    subtomograms: Subtomograms, rows: slice, predict: Predictor, batch_size: int
) -> Float[np.ndarray, "k codes"]:
    """Codes of the boxes of some rows, read a batch at a time."""
    starts = range(rows.start, rows.stop, batch_size)
    parts = (subtomograms.boxes(slice(start, min(start + batch_size, rows.stop))) for start in starts)
    return np.concatenate([predict_boxes(predict, part, batch_size) for part in parts])


@torch.inference_mode()
def decode(codes: Float[np.ndarray, "k codes"], model: Path, *, batch_size: int = 32) -> Float[np.ndarray, "k d d d"]:
    """The pictures that codes stand for.

    Parameters
    ----------
    codes
        Codes of boxes, or anything between them, shape (k, codes).
    model
        Model folder.
    batch_size
        Codes a batch.

    Returns
    -------
    NDArray[float32], shape (k, D, D, D)
        Bright, at the scale of the boxes in training.

    Raises
    ------
    InputError
        When the codes have another length than the autoencoder's.
    """
    network, card = load_autoencoder(model)
    if codes.ndim != 2 or codes.shape[1] != card.codes:
        raise InputError(f"expected codes of {card.codes} values, got shape {codes.shape}; encode with this model")
    parts = torch.from_numpy(np.asarray(codes, dtype=np.float32)).split(batch_size)
    return torch.cat([network.decode(part)[:, 0] for part in parts]).numpy()


# ------------------------------------------------------------------------------------------------ patterns


def cluster_codes(
    codes: Float[np.ndarray, "n codes"], count: int, *, seed: int = 0
) -> tuple[Int[np.ndarray, " n"], Float[np.ndarray, "k codes"]]:
    """Group codes by k-means.

    Parameters
    ----------
    codes
        One row a particle.
    count
        Number of clusters.
    seed
        Of the starts.

    Returns
    -------
    labels : shape (n,)
        Index of each particle's cluster; larger clusters first.
    centres : shape (k, codes)
        Means of the members; k is smaller than ``count`` when there are fewer different codes.

    Raises
    ------
    InputError
        When there are fewer particles than clusters.
    """
    if len(codes) < count:
        raise InputError(
            f"expected at least as many particles as patterns, got {len(codes)} particles for {count} patterns; pick "
            "more or ask for fewer patterns"
        )
    labels = clusters_of(codes, "kmeans", count, seed=seed)
    return labels, np.stack([codes[labels == k].mean(axis=0) for k in range(labels.max() + 1)])


def find_patterns(
    subtomograms: Subtomograms,
    model: Path,
    settings: CodeClusterSettings,
    work: Path,
    *,
    progress: Progress | None = None,
) -> tuple[Particles, Float[np.ndarray, "k d d d"]]:
    """Encode boxes, group the codes, and draw the centre of every group.

    Parameters
    ----------
    subtomograms, model, work, progress
        As of :func:`encode`.
    settings
        Number of patterns, runtime.

    Returns
    -------
    particles : Particles
        The same n rows with ``pattern`` (1 is the largest), ``pattern_distance`` (of the code from that of the pattern)
        and the codes as features.
    pictures : NDArray[float32], shape (k, D, D, D)
        Picture k - 1 is that of pattern k.

    Raises
    ------
    InputError
        When there are fewer particles than patterns, or the boxes are not what the autoencoder was trained on.
    """
    codes = encode(subtomograms, model, settings, work, progress=progress)
    labels, centres = cluster_codes(codes, settings.patterns, seed=settings.seed)
    distance = np.linalg.norm(codes - centres[labels], axis=1)
    named = subtomograms.particles.with_columns(pattern=labels + 1, pattern_distance=distance)
    names = tuple(f"code{i}" for i in range(codes.shape[1]))
    return replace(named, features=codes, feature_names=names), decode(centres, model)
