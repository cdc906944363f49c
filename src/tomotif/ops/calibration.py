"""Whether probabilities mean what they say: softmax, temperature scaling, expected calibration error."""

from __future__ import annotations

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Int
from scipy.optimize import minimize_scalar

BINS = 15


def softmax(logits: Float[np.ndarray, "n c"], temperature: float = 1.0) -> Float[np.ndarray, "n c"]:
    """Probabilities of logits over a temperature, row by row.

    >>> softmax(np.array([[0.0, 0.0]], np.float32)).tolist()
    [[0.5, 0.5]]
    """
    scaled = logits / temperature
    raised = np.exp(scaled - scaled.max(axis=1, keepdims=True))
    return raised / raised.sum(axis=1, keepdims=True)


def fit_temperature(logits: Float[np.ndarray, "n c"], target: Int[np.ndarray, " n"]) -> float:
    """Temperature under which the true classes are likeliest; above 1 for a network that is too sure of itself.

    Guo, Pleiss, Sun, Weinberger 2017, ICML. Take boxes that were not learned from.

    Examples
    --------
    >>> logits = np.array([[9.0, 0.0], [9.0, 0.0], [9.0, 0.0], [9.0, 0.0]])  # says 0.9999, is right 3 times in 4
    >>> round(float(softmax(logits, fit_temperature(logits, np.array([0, 0, 0, 1])))[0, 0]), 3)
    0.75
    """
    rows = np.arange(len(target))

    def loss(log_temperature: float) -> float:
        likelihood = softmax(logits.astype(np.float64), float(np.exp(log_temperature)))[rows, target]
        return float(-np.log(np.maximum(likelihood, 1e-12)).mean())

    return float(np.exp(minimize_scalar(loss, bounds=(-3.0, 3.0), method="bounded").x))


def reliability(
    probability: Float[np.ndarray, " n"], correct: Bool[np.ndarray, " n"], *, bins: int = BINS
) -> pd.DataFrame:
    """How often answers of each probability are right: the points of a reliability diagram.

    Parameters
    ----------
    probability
        Of the answers that were given, 0 to 1.
    correct
        Whether they were right.
    bins
        Number of equal intervals from 0 to 1; empty ones are left out.

    Returns
    -------
    DataFrame
        ``probability`` and ``accuracy``, means in the interval, and ``count``.
    """
    which = np.minimum((np.asarray(probability) * bins).astype(int), bins - 1)
    table = pd.DataFrame({"probability": probability, "accuracy": np.asarray(correct, dtype=float), "count": 1})
    return table.groupby(which).agg({"probability": "mean", "accuracy": "mean", "count": "sum"}).reset_index(drop=True)


def expected_calibration_error(
    probability: Float[np.ndarray, " n"], correct: Bool[np.ndarray, " n"], *, bins: int = BINS
) -> float:
    """Mean over all answers of |accuracy - probability| of their interval.

    >>> expected_calibration_error(np.array([0.9, 0.9]), np.array([True, False]))
    0.4
    """
    table = reliability(probability, correct, bins=bins)
    apart = (table["accuracy"] - table["probability"]).abs()
    return float((apart * table["count"]).sum() / table["count"].sum())
