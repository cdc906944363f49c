"""Networks in 8-bit integers: they agree with what they were made from, and say how well."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.conftest import shell_stack
from tomotif.core import InputError, Subtomograms
from tomotif.engine.int8 import write_int8
from tomotif.engine.model_folder import read_card
from tomotif.engine.predict import INT8, Layer, int8_predictor, openvino_predictor, predict_boxes
from tomotif.tasks.classify import ClassifierSettings, train_classifier


@pytest.fixture(scope="module")
def shells() -> Subtomograms:
    return shell_stack(192, 16)


@pytest.fixture(scope="module")
def model(shells: Subtomograms, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trained network, and the same in 8-bit integers."""
    folder = tmp_path_factory.mktemp("int8")
    train_classifier(shells, ClassifierSettings(epochs=6, int8=True), folder, progress=False)
    return folder / "model"


@pytest.mark.parametrize(("layer", "likeness"), [("logits", 0.99), ("embedding", 0.97)])
def test_both_networks_give_nearly_the_same(model: Path, shells: Subtomograms, layer: Layer, likeness: float) -> None:
    """Another batch size than that it was made with, and a last batch that is not full."""
    exact = predict_boxes(openvino_predictor(model, 24, layer), shells.stack, 24)
    rounded = predict_boxes(int8_predictor(model, 24, layer), shells.stack, 24)
    assert exact.shape == rounded.shape
    assert not np.array_equal(exact, rounded)
    assert np.corrcoef(exact.ravel(), rounded.ravel())[0, 1] > likeness


def test_the_card_says_how_often_they_agree(model: Path, shells: Subtomograms) -> None:
    said = read_card(model).int8_agreement
    assert said is not None and said >= 0.95
    assert write_int8(model, np.asarray(shells.stack)) == pytest.approx(said, abs=0.05)
    assert sorted(path.name for path in model.iterdir()) == [
        "int8.bin",
        "int8.xml",
        "known.safetensors",
        "model.json",
        "model.safetensors",
    ]


def test_without_it_one_line_says_what_to_do(model: Path, tmp_path: Path, shells: Subtomograms) -> None:
    with pytest.raises(InputError, match="--int8"):
        int8_predictor(tmp_path, 32)
    with pytest.raises(InputError, match="at least 64 boxes"):
        write_int8(model, shells.stack[:63])
    assert (model / INT8).exists()
