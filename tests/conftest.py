"""Run-time checks of annotated shapes, and one small noisy stack that several tests share."""

from __future__ import annotations

from jaxtyping import install_import_hook

import tests.typecheck  # noqa: F401 - the hook finds the checker by its name

CHECKED = ["tomotif.ops", "tomotif.models", "tomotif.data"]
install_import_hook(CHECKED, "tests.typecheck.check")

import numpy as np  # noqa: E402 - the hook must be there before anything is imported
import pytest  # noqa: E402

from tomotif.core import MissingWedge, Particles, Subtomograms  # noqa: E402
from tomotif.core.geometry import radius_grid  # noqa: E402


def shell_stack(count: int, box_px: int = 16, noise: float = 0.5, seed: int = 0) -> Subtomograms:
    """Balls and hollow shells of one size in white noise: two classes that a network must tell apart."""
    rng = np.random.default_rng(seed)
    radius = radius_grid((box_px,) * 3)
    templates = np.stack([(radius < 5), (radius < 5) & (radius > 3)]).astype(np.float32)
    index = rng.integers(2, size=count)
    boxes = templates[index] + noise * rng.standard_normal((count, box_px, box_px, box_px), dtype=np.float32)
    boxes -= boxes.mean(axis=(1, 2, 3), keepdims=True)
    boxes /= boxes.std(axis=(1, 2, 3), keepdims=True)
    particles = Particles.create(
        [f"ts_{i % 4}" for i in range(count)],
        np.full((count, 3), 100.0),
        columns={"class": np.array(["ball", "shell"], dtype=object)[index], "stack_index": np.arange(count)},
    )
    return Subtomograms(particles, boxes.astype(np.float16), 10.0, MissingWedge(-60, 60))


@pytest.fixture(scope="session")
def shells() -> Subtomograms:
    """128 boxes of two classes."""
    return shell_stack(128)
