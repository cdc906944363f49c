"""Prediction: a stack on disk through a network, shard by shard, in constant memory.

Each shard's result is a file that appears whole, so a killed run repeats at most the shards it was in, and the
assembled result is the same bytes.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from tomotif.core import InputError, Progress
from tomotif.data.augment import Flip, flip_boxes
from tomotif.engine.execute import run_all
from tomotif.engine.model_folder import last_layer, load_model, read_card
from tomotif.io.files import replacing
from tomotif.io.stack import open_stack

if TYPE_CHECKING:  # openvino is imported by who uses it
    import openvino

Runtime = Literal["openvino", "openvino-int8", "torch"]
INT8 = "int8.xml"
"""In a model folder: its network in 8-bit integers, which gives logits and embedding (see engine.int8)."""
Layer = Literal["logits", "embedding"]
"""What comes out: the last layer, or what it is made from."""
INT8_OUTPUTS: tuple[Layer, ...] = ("logits", "embedding")
NO_FLIPS: tuple[Flip, ...] = ((False, False, False),)
"""The boxes as they are."""
Predictor = Callable[[NDArray[np.float32]], NDArray[np.float32]]


@dataclass(frozen=True)
class Shard:
    """Boxes ``start`` to ``stop`` of a stack, the network they go through, and where the result goes."""

    model: Path
    stack: Path
    start: int
    stop: int
    output: Path
    runtime: Runtime
    batch_size: int
    flips: tuple[Flip, ...] = NO_FLIPS
    layer: Layer = "logits"


def ending_in(model: nn.Module, layer: Layer) -> nn.Module:
    """The network up to a layer: for the embedding, without its last linear layer. The network itself is changed."""
    if layer == "embedding":
        model.set_submodule(last_layer(model)[0], nn.Identity())
    return model


def torch_predictor(folder: Path, batch_size: int, layer: Layer = "logits") -> Predictor:
    """Run the network in PyTorch, on the GPU when there is one."""
    model = ending_in(load_model(folder)[0], layer)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = model.to(device, memory_format=torch.channels_last_3d)  # type: ignore[call-overload]  # stubs lack 3-D

    @torch.inference_mode()
    def predict(boxes: NDArray[np.float32]) -> NDArray[np.float32]:
        x = torch.from_numpy(boxes).to(device).contiguous(memory_format=torch.channels_last_3d)
        return model(x).float().cpu().numpy()

    return predict


def openvino_predictor(folder: Path, batch_size: int, layer: Layer = "logits") -> Predictor:
    """Run the network in OpenVINO on the CPU, in 32-bit floats."""
    model, card = load_model(folder)
    run = running(openvino_graph(ending_in(model, layer), (batch_size, 1, card.box_px, card.box_px, card.box_px)))
    return lambda boxes: run(boxes)[0]


def running(graph: openvino.Model) -> Callable[[NDArray[np.float32]], list[NDArray[np.float32]]]:
    """A graph ready to run on the CPU; gives all its outputs."""
    import openvino

    compiled = openvino.compile_model(graph, "CPU", {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"})

    def run(boxes: NDArray[np.float32]) -> list[NDArray[np.float32]]:
        made = compiled([boxes])
        return [np.array(made[i], dtype=np.float32) for i in range(len(compiled.outputs))]

    return run


def int8_predictor(folder: Path, batch_size: int, layer: Layer = "logits") -> Predictor:
    """Run the network that lies beside the weights in 8-bit integers.

    Raises
    ------
    InputError
        When there is none.
    """
    import openvino

    path = folder / INT8
    if not path.exists():
        raise InputError(
            f"expected a network in 8-bit integers at {path}, found none; train with --int8, or use --runtime openvino"
        )
    card = read_card(folder)
    graph = openvino.Core().read_model(path)
    graph.reshape([batch_size, 1, card.box_px, card.box_px, card.box_px])
    run, output = running(graph), INT8_OUTPUTS.index(layer)
    return lambda boxes: run(boxes)[output]


def openvino_graph(model: nn.Module, shape: tuple[int, ...]) -> openvino.Model:
    """OpenVINO's graph of a network for inputs of this shape.

    The front end is called directly: ``openvino.convert_model`` gives the same graph but takes 1.7 GB for a moment.
    """
    from openvino.frontend import FrontEndManager
    from openvino.frontend.pytorch.ts_decoder import TorchScriptPythonDecoder

    traced = torch.jit.trace(model, torch.zeros(1, *shape[1:]), check_trace=False)
    front_end = FrontEndManager().load_by_framework("pytorch")
    decoder = TorchScriptPythonDecoder(traced)  # must outlive the conversion
    graph = front_end.convert(front_end.load(decoder))
    graph.reshape(list(shape))
    return graph


@lru_cache(maxsize=2)
def predictor(folder: Path, runtime: Runtime, batch_size: int, layer: Layer, weights: str) -> Predictor:
    """Build the predictor of a model folder once per process and per state of its weights."""
    build = {"torch": torch_predictor, "openvino": openvino_predictor, "openvino-int8": int8_predictor}[runtime]
    return build(folder, batch_size, layer)


def predict_boxes(
    predict: Predictor, boxes: NDArray[np.floating], batch_size: int, flips: Sequence[Flip] = NO_FLIPS
) -> NDArray[np.float32]:
    """Logits (n, L) of boxes (n, d, d, d), the mean over their flips.

    The last batch is filled up, because graphs have a fixed batch size.
    """
    results = []
    for start in range(0, len(boxes), batch_size):
        read = np.array(boxes[start : start + batch_size])
        batch = torch.from_numpy(read).float()[:, None]  # numpy takes eleven times as long from float16
        missing = batch_size - len(batch)
        full = torch.cat([batch, batch.new_zeros(missing, *batch.shape[1:])]) if missing else batch
        logits = [predict(flip_boxes(full, flip).numpy()) for flip in flips]
        results.append(np.stack(logits).mean(axis=0)[: len(batch)])
    return np.concatenate(results)


def predict_shard(shard: Shard) -> None:
    """Predict one shard and leave its logits in ``shard.output``; nothing to do when they are there."""
    if shard.output.exists():
        return
    _, card = load_model(shard.model)
    predict = predictor(shard.model, shard.runtime, shard.batch_size, shard.layer, card.weights_blake2)
    stack, _ = open_stack(shard.stack)
    logits = predict_boxes(predict, stack[shard.start : shard.stop], shard.batch_size, shard.flips)
    with replacing(shard.output) as part, part.open("wb") as file:
        np.save(file, logits, allow_pickle=False)


def predict_stack(
    model: Path,
    stack: Path,
    work: Path,
    *,
    runtime: Runtime = "openvino",
    batch_size: int = 32,
    shard_size: int = 4096,
    flips: Sequence[Flip] = NO_FLIPS,
    layer: Layer = "logits",
    progress: Progress | None = None,
) -> NDArray[np.float32]:
    """Logits, or embeddings, of every box of a stack.

    Parameters
    ----------
    model
        Model folder.
    stack
        The stack, n boxes.
    work
        Folder for the shards' results; a killed run continues from what lies there.
    runtime
        ``"openvino"``, ``"openvino-int8"`` or ``"torch"``.
    batch_size
        Boxes a batch; part of what makes a result the same bytes.
    shard_size
        Boxes a shard.
    flips
        Flips of the boxes, whose results are averaged.
    layer
        What comes out of the network.
    progress
        Called with (shards done, shards).

    Returns
    -------
    NDArray[float32], shape (n, L) or (n, width of the embedding)
    """
    count = len(open_stack(stack)[0])
    work.mkdir(parents=True, exist_ok=True)
    shards = [
        Shard(
            model=model,
            stack=stack,
            start=start,
            stop=min(start + shard_size, count),
            output=work / f"{start:010d}.npy",
            runtime=runtime,
            batch_size=batch_size,
            flips=tuple(flips),
            layer=layer,
        )
        for start in range(0, count, shard_size)
    ]
    run_all(predict_shard, shards, progress=progress)
    width = np.load(shards[0].output, allow_pickle=False).shape[1]
    found = np.empty((count, width), np.float32)
    for shard in shards:
        found[shard.start : shard.stop] = np.load(shard.output, allow_pickle=False)
    return found


def discard_shards(work: Path) -> None:
    """Delete the shards' results once the whole result is on disk."""
    shutil.rmtree(work, ignore_errors=True)
