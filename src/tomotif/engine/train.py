"""The one training loop: Lightning, with early stopping, our checkpoints, resume and a history table."""

from __future__ import annotations

import logging
import math
import warnings
from pathlib import Path
from typing import Any, Literal

import lightning.pytorch as lightning
import pandas as pd
import torch
from lightning.pytorch.callbacks import Callback, EarlyStopping, ModelCheckpoint, RichProgressBar
from pydantic import Field
from torch import nn
from torch.utils.data import DataLoader

from tomotif.core import InputError, Settings
from tomotif.engine.checkpoint import SafeCheckpointIO, read_checkpoint
from tomotif.io.files import replacing

LAST, BEST = "last", "best"
_PRECISION: dict[str, Literal["32-true", "bf16-mixed"]] = {"float32": "32-true", "bfloat16": "bf16-mixed"}


class TrainSettings(Settings):
    """How long and how fast to learn; the same for every network."""

    epochs: int = Field(default=20, ge=1)
    """Largest number of passes over the training particles."""
    batch_size: int = Field(default=32, ge=1)
    """Particles a step."""
    learning_rate: float = Field(default=2e-3, gt=0)
    """Largest learning rate of AdamW; it warms up, then falls along a cosine."""
    weight_decay: float = Field(default=1e-2, ge=0)
    """Weight decay of AdamW."""
    patience: int = Field(default=8, ge=1)
    """Stop when the validation loss has not improved for this many epochs."""
    seed: int = 0
    """Seed of initial weights, shuffling and augmentation."""
    device: Literal["auto", "cpu", "gpu"] = "auto"
    """Where to train; 'auto' takes the GPU when there is one."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Numbers that layers compute with; 'bfloat16' is faster on GPUs and on processors that have it (`tomotif
    doctor` says so), and slow on others. Weights are float32 always."""


class Objective(lightning.LightningModule):
    """A network with its loss: what a task must provide to be trained.

    Subclasses define ``training_step`` and ``validation_step`` and log ``val_loss``.

    Parameters
    ----------
    model
        The network.
    settings
        Optimiser settings.
    """

    def __init__(self, model: nn.Module, settings: TrainSettings) -> None:
        super().__init__()
        self.model, self.settings = model, settings

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Seed dropout by the step, so that a resumed run draws what the killed one would have."""
        torch.manual_seed(self.settings.seed * 1_000_003 + self.global_step)

    def configure_optimizers(self) -> dict[str, Any]:
        """AdamW (Loshchilov and Hutter 2019, ICLR) with a warm-up of 10 % and a cosine to zero, step by step."""
        optimiser = torch.optim.AdamW(
            self.parameters(), lr=self.settings.learning_rate, weight_decay=self.settings.weight_decay
        )
        steps = max(int(self.trainer.estimated_stepping_batches), 1)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: warm_cosine(step / steps))
        return {"optimizer": optimiser, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def warm_cosine(progress: float, warm: float = 0.1) -> float:
    """Fraction of the largest learning rate at a fraction of the training.

    >>> warm_cosine(0.05), warm_cosine(0.1), round(warm_cosine(1.0), 6)
    (0.5, 1.0, 0.0)
    """
    if progress < warm:
        return max(progress / warm, 1e-3)
    return 0.5 * (1 + math.cos(math.pi * min((progress - warm) / (1 - warm), 1.0)))


class History(Callback):
    """One row of metrics an epoch, in ``history.csv``; it travels in the checkpoint, so that a resumed run goes on."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rows: list[dict[str, float]] = []

    def on_validation_epoch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Take the epoch's metrics."""
        if trainer.sanity_checking:
            return
        metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
        self.rows = [*self.rows[: trainer.current_epoch], {"epoch": float(trainer.current_epoch), **metrics}]

    def on_train_epoch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Add the training metrics of the epoch, known only now, and write the table."""
        metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
        self.rows[-1].update(metrics)
        with replacing(self.path) as part:
            pd.DataFrame(self.rows).astype({"epoch": int}).to_csv(part, index=False)

    def state_dict(self) -> dict[str, Any]:
        """Rows so far, for the checkpoint."""
        return {"rows": self.rows}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Rows of the killed run."""
        self.rows = state_dict["rows"]


def fit(
    objective: Objective,
    train: DataLoader[Any],
    validation: DataLoader[Any],
    settings: TrainSettings,
    folder: Path,
    *,
    progress: bool = True,
) -> dict[str, float]:
    """Train, and put the weights of the best epoch into ``objective.model``.

    Parameters
    ----------
    objective
        Network and loss.
    train, validation
        Batches.
    settings
        How long and how fast.
    folder
        For checkpoints and ``history.csv``; a killed run continues from its last epoch.
    progress
        Show a progress bar.

    Returns
    -------
    dict[str, float]
        Metrics of the best epoch, and ``epochs``, how many were run.

    Raises
    ------
    InputError
        When the loss was no number in any epoch.
    """
    checkpoints = folder / "checkpoints"
    checkpoints.mkdir(parents=True, exist_ok=True)
    history = History(folder / "history.csv")
    keep = ModelCheckpoint(
        checkpoints, filename=BEST, monitor="val_loss", save_last=True, enable_version_counter=False, save_top_k=1
    )
    keep.FILE_EXTENSION = ".safetensors"
    callbacks: list[Callback] = [history, EarlyStopping("val_loss", patience=settings.patience), keep]
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    if progress:
        callbacks.append(RichProgressBar(refresh_rate=5))
    trainer = lightning.Trainer(
        max_epochs=settings.epochs,
        accelerator=settings.device,
        devices=1,
        precision=_PRECISION[settings.precision],
        logger=False,
        callbacks=callbacks,
        plugins=[SafeCheckpointIO()],
        enable_progress_bar=progress,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
    )
    last = checkpoints / f"{LAST}.safetensors"
    with warnings.catch_warnings(), torch.random.fork_rng():
        warnings.filterwarnings("ignore", message=".*does not have many workers.*")  # see data.batches.loader
        warnings.filterwarnings("ignore", message=".*exists and is not empty.*")  # that is how a run resumes
        torch.manual_seed(settings.seed)
        trainer.fit(objective, train, validation, ckpt_path=last if last.exists() else None)
    table = pd.DataFrame(history.rows)
    if not table["val_loss"].notna().any():
        raise InputError(
            f"the loss is no number after epoch {len(table)}; lower --learning-rate (here {settings.learning_rate:g})"
            + (", or take --precision float32" if settings.precision != "float32" else "")
        )
    best = read_checkpoint(checkpoints / f"{BEST}.safetensors")
    objective.load_state_dict(best["state_dict"])
    objective.model.eval()
    row = table.iloc[int(table["val_loss"].argmin())]
    return {**{str(k): float(v) for k, v in row.items()}, "epochs": float(len(table))}
