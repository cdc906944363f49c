"""Probabilities that mean what they say."""

from __future__ import annotations

import numpy as np
import pytest

from tomotif.ops.calibration import expected_calibration_error, fit_temperature, reliability, softmax


def answers(sharpness: float, count: int = 20_000) -> tuple[np.ndarray, np.ndarray]:
    """Logits times a sharpness, and classes drawn with the probabilities of the logits themselves."""
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 1.5, (count, 4))
    target = (softmax(logits).cumsum(axis=1) > rng.random((count, 1))).argmax(axis=1)
    return logits * sharpness, target


@pytest.mark.parametrize("sharpness", [0.4, 1.0, 3.0])
def test_the_temperature_undoes_what_made_the_network_too_sure(sharpness: float) -> None:
    logits, target = answers(sharpness)
    temperature = fit_temperature(logits, target)
    assert temperature == pytest.approx(sharpness, rel=0.05)
    honest = softmax(logits, temperature)
    assert expected_calibration_error(honest.max(1), honest.argmax(1) == target) < 0.015


def test_too_sure_is_seen() -> None:
    logits, target = answers(3.0)
    sure = softmax(logits)
    error = expected_calibration_error(sure.max(1), sure.argmax(1) == target)
    assert 0.1 < error < 0.4
    table = reliability(sure.max(1), sure.argmax(1) == target)
    assert table["count"].sum() == len(target)
    assert (table["accuracy"] < table["probability"]).mean() > 0.8
