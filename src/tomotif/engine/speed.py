"""How many boxes a second go through a network here."""

from __future__ import annotations

import time

import numpy as np
import torch

from tomotif.engine.int8 import quantised
from tomotif.engine.predict import Predictor, openvino_graph, running
from tomotif.models import build_model


def boxes_per_second(
    name: str, box_px: int, n_classes: int, *, batch_size: int = 32, seconds: float = 1.0, int8: bool = False
) -> float:
    """Speed of a registered network with fresh weights, in OpenVINO on all cores of this CPU.

    Parameters
    ----------
    name, box_px, n_classes
        As of :func:`~tomotif.models.build_model`.
    batch_size
        Boxes a batch.
    seconds
        How long to measure.
    int8
        In 8-bit integers, not in 32-bit floats.

    Raises
    ------
    InputError
        When NNCF, which makes 8-bit integers, is not installed.
    """
    with torch.random.fork_rng():
        model = build_model(name, box_px, n_classes).eval()
    shape = (batch_size, 1, box_px, box_px, box_px)
    graph = openvino_graph(model, shape)
    if int8:
        graph = quantised(graph, [np.random.default_rng(0).standard_normal(shape, dtype=np.float32)])
    run = running(graph)
    return predictor_speed(lambda boxes: run(boxes)[0], box_px, batch_size, seconds)


def predictor_speed(predict: Predictor, box_px: int, batch_size: int, seconds: float) -> float:
    """Boxes a second through a predictor, after one batch to warm up; speed does not depend on what is in a box."""
    boxes = np.random.default_rng(0).standard_normal((batch_size, 1, box_px, box_px, box_px), dtype=np.float32)
    predict(boxes)
    begun, count = time.perf_counter(), 0
    while time.perf_counter() - begun < seconds:
        predict(boxes)
        count += batch_size
    return count / (time.perf_counter() - begun)
