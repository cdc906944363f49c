"""The contract that every registered classifier keeps, and the literal sizes of the published ones."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tomotif.core import InputError, UnknownNameError
from tomotif.engine.predict import openvino_graph
from tomotif.models import architecture, architecture_names, build_model

LITERAL = {"dsrf3d": 33_237_559}  # at 40 voxels and 23 classes


def parameter_count(model: torch.nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize("name", sorted(LITERAL))
def test_published_networks_have_their_published_size(name: str) -> None:
    assert parameter_count(build_model(name, 40, 23)) == LITERAL[name]


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
