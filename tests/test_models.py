"""The contract that every registered classifier keeps, and the literal sizes of the published ones."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tomotif.cli.models import models
from tomotif.core import InputError, UnknownNameError
from tomotif.engine.predict import openvino_graph
from tomotif.models import architecture, architecture_names, build_model
from tomotif.models.size import model_size

LITERAL = {
    "inception3d": 18_206_983,
    "dsrf3d": 33_237_559,
    "dsrf3d_v2": 18_316_599,
    "rb3d": 263_334_103,
    "cb3d": 61_309_335,
}
"""Parameters at 40 voxels and 23 classes."""
GMACS = {"inception3d": 0.92, "dsrf3d": 3.19, "dsrf3d_v2": 3.83, "rb3d": 1.24, "cb3d": 11.93}
FIELDS = {"dsrf3d": 16, "dsrf3d_v2": 36, "inception3d": 16, "rb3d": 20}
"""Receptive fields by hand: 3³ convolutions add 2, pooling 1, each times the product of the strides before it."""


@pytest.mark.parametrize("name", sorted(LITERAL))
def test_published_networks_have_their_published_size(name: str) -> None:
    size = model_size(name, 40, 23)
    assert size.parameters == LITERAL[name]
    assert size.multiply_adds / 1e9 == pytest.approx(GMACS[name], abs=0.01)
    assert size.receptive_field_px == FIELDS.get(name, 40)


@pytest.mark.parametrize("box_px", [32, 40])
def test_every_network_has_a_size(box_px: int) -> None:
    for name in architecture_names():
        size = model_size(name, box_px, 11)
        assert size.parameters > 1e5 and size.multiply_adds > 1e7 and 10 <= size.receptive_field_px <= box_px


def test_ours_are_far_lighter_than_the_best_published() -> None:
    assert model_size("motif3d_rif", 40, 11).multiply_adds < model_size("dsrf3d", 40, 11).multiply_adds / 8
    assert model_size("motif3d_fast", 40, 11).multiply_adds < 1.2e8


def test_light_variants_are_light() -> None:
    assert model_size("rb3d_gap", 40, 23).parameters == pytest.approx(0.12e6, rel=0.05)
    assert model_size("cb3d_gap", 40, 23).multiply_adds < model_size("cb3d", 40, 23).multiply_adds / 12


@pytest.mark.parametrize("name", ["dsrf3d", "inception3d", "motif3d", "motif3d_fast", "motif3d_rif"])
def test_the_receptive_field_is_where_a_change_is_seen(name: str) -> None:
    """A voxel that is not a number spreads to whatever it has a say in, through maxima too."""
    model = build_model(name, 32, 5).eval()
    maps: list[torch.Tensor] = []
    for module in model.modules():
        module.register_forward_hook(lambda _module, _given, made: maps.append(made))
    seen = 0
    for plane in range(32):
        maps.clear()
        box = torch.zeros(1, 1, 32, 32, 32)
        box[:, :, plane] = torch.nan
        model(box)
        last = [made for made in maps if made.ndim == 5 and min(made.shape[2:]) > 1][-1]
        seen += int(last[0, :, last.shape[2] // 2, last.shape[3] // 2, last.shape[4] // 2].isnan().any())
    assert seen == model_size(name, 32, 5).receptive_field_px


@pytest.mark.parametrize("name", architecture_names())
def test_forward_and_backward(name: str) -> None:
    torch.manual_seed(0)
    box = 2 * architecture(name).box_multiple
    model = build_model(name, box, 5)
    logits = model(torch.randn(3, 1, box, box, box))
    assert logits.shape == (3, 5)
    torch.nn.functional.cross_entropy(logits, torch.tensor([0, 1, 4])).backward()
    gradients = [p.grad for p in model.parameters()]
    assert all(g is not None and torch.isfinite(g).all() for g in gradients)
    assert sum(float(g.abs().sum()) for g in gradients) > 0


@pytest.mark.parametrize("name", architecture_names())
def test_openvino_gives_what_torch_gives(name: str) -> None:
    import openvino

    torch.manual_seed(0)
    box = 2 * architecture(name).box_multiple
    model = build_model(name, box, 4).eval()
    x = torch.randn(2, 1, box, box, box)
    compiled = openvino.compile_model(openvino_graph(model, tuple(x.shape)), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    np.testing.assert_allclose(compiled([x.numpy()])[0], model(x).detach().numpy(), atol=1e-4)


def test_unknown_model_names_the_near_one() -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'dsrf3d'"):
        build_model("dsfr3d", 40, 3)


def test_a_box_that_does_not_fit_is_refused() -> None:
    with pytest.raises(InputError, match="multiple of 8 voxels, got 36"):
        build_model("motif3d", 36, 3)


def test_autoencoders_are_listed_beside_the_classifiers(capsys: pytest.CaptureFixture[str]) -> None:
    models(speed=False)
    assert "1,149,793" in capsys.readouterr().out
    models(box_px=34, speed=False)
    assert "an autoencoder" not in capsys.readouterr().out
