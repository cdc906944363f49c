"""Networks in 8-bit integers: faster on CPUs, and checked against the one they were made from.

Post-training quantisation by NNCF (Kozlov et al. 2020, arXiv:2002.08679): the ranges of weights and activations are
measured on some boxes. The result lies beside the weights as ``int8.xml`` and ``int8.bin``, which OpenVINO reads; only
making it needs NNCF (``pip install 'tomotif[compress]'``).
"""

from __future__ import annotations

import io
import logging
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor, nn

from tomotif.core import InputError
from tomotif.engine.model_folder import last_layer, load_model, read_card, write_card
from tomotif.engine.predict import INT8, openvino_graph, running

if TYPE_CHECKING:
    import openvino

BATCH = 32
CALIBRATION_BATCHES = 8


class LogitsAndEmbedding(nn.Module):
    """A network that gives what its last layer is made from beside its logits."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        name, self.last = last_layer(model)
        model.set_submodule(name, nn.Identity())
        self.body = model

    def forward(self, x: Float[Tensor, "n 1 d d d"]) -> tuple[Float[Tensor, "n c"], Float[Tensor, "n f"]]:
        """Logits and embedding."""
        embedding = self.body(x)
        return self.last(embedding), embedding  # in the order of predict.INT8_OUTPUTS


def write_int8(folder: Path, boxes: NDArray[np.floating]) -> float:
    """Put a network in 8-bit integers beside its weights, and say in its card how often both agree.

    Parameters
    ----------
    folder
        Model folder.
    boxes
        Boxes like those it will see, shape (n, D, D, D), n ≥ 64: half of them to measure ranges, half to compare.

    Returns
    -------
    float
        Share of the compared boxes that both networks give the same class.

    Raises
    ------
    InputError
        When NNCF is not installed, or there are too few boxes.
    """
    if len(boxes) < 2 * BATCH:
        raise InputError(f"expected at least {2 * BATCH} boxes to make a network in 8-bit integers, got {len(boxes)}")
    model, card = load_model(folder)
    graph = openvino_graph(LogitsAndEmbedding(model), (BATCH, 1, card.box_px, card.box_px, card.box_px))
    batches = list(in_batches(boxes))
    measured, compared = batches[::2][:CALIBRATION_BATCHES], batches[1::2]
    smaller = quantised(graph, measured)
    both = [np.concatenate([run(batch)[0] for batch in compared]) for run in (running(graph), running(smaller))]
    agreement = float(np.mean(both[0].argmax(axis=1) == both[1].argmax(axis=1)))
    save_graph(smaller, folder / INT8)
    write_card(folder, read_card(folder).model_copy(update={"int8_agreement": round(agreement, 4)}))
    return agreement


def in_batches(boxes: NDArray[np.floating]) -> Iterator[NDArray[np.float32]]:
    """Whole batches with a channel."""
    for start in range(0, len(boxes) - BATCH + 1, BATCH):
        yield np.asarray(boxes[start : start + BATCH], dtype=np.float32)[:, None]


def quantised(graph: openvino.Model, batches: list[NDArray[np.float32]]) -> openvino.Model:
    """The graph with 8-bit convolutions."""
    with without_telemetry():
        try:
            import nncf
        except ImportError as error:
            raise InputError(
                "expected NNCF, which makes networks in 8-bit integers, got none; pip install 'tomotif[compress]'"
            ) from error
        logging.getLogger("nncf").setLevel(logging.ERROR)
        with redirect_stdout(io.StringIO()):  # its progress bars
            # products cost little beside convolutions, and the squares of a power spectrum do not bear rounding
            others = nncf.IgnoredScope(types=["MatMul"], validate=False)
            return nncf.quantize(graph, nncf.Dataset(batches), subset_size=len(batches), ignored_scope=others)


@contextmanager
def without_telemetry() -> Iterator[None]:
    """NNCF tells nobody that it was used."""
    before = os.environ.get("NNCF_CI")
    os.environ["NNCF_CI"] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ["NNCF_CI"]
        else:
            os.environ["NNCF_CI"] = before


def save_graph(graph: openvino.Model, path: Path) -> None:
    """Write a graph, its weights first, so that it is there when its ``.xml`` is."""
    import openvino

    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        made = Path(folder) / path.name
        openvino.save_model(graph, made, compress_to_fp16=False)
        made.with_suffix(".bin").replace(path.with_suffix(".bin"))
        made.replace(path)
