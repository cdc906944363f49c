"""Patterns of one structure are joined, whatever split them, and others are left alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tomotif.core import Subtomograms
from tomotif.io.structure import load_structure
from tomotif.tasks.average.alike import join_alike, likest
from tomotif.tasks.average.pictures import PictureSettings
from tomotif.tasks.simulate import SubtomogramSettings, simulate_subtomograms

EACH = 50
SETTINGS = PictureSettings(particles=24, resolution=70.0, rotations=576)


@pytest.fixture(scope="module")
def boxes() -> Subtomograms:
    """GroEL and 20S proteasomes, with a neighbour each."""
    settings = SubtomogramSettings(count=EACH, snr=0.5, snr_reference="each", neighbours=1, voxel_size=16.0, box_px=24)
    return simulate_subtomograms(
        [load_structure(name) for name in ("1oel", "3j9i")], settings, np.random.default_rng(4)
    )


def test_halves_of_one_structure_are_joined_and_others_are_not(boxes: Subtomograms, tmp_path: Path) -> None:
    groel = (boxes.particles["class"] == "1oel").to_numpy()
    labels = np.where(groel, np.cumsum(groel) % 2, 2)  # GroEL in two patterns
    joined = join_alike(boxes, labels, SETTINGS, tmp_path)
    np.testing.assert_array_equal(joined, np.where(groel, joined[groel][0], joined[~groel][0]))
    assert joined[groel][0] != joined[~groel][0]


def test_patterns_too_small_to_have_a_map_are_left_alone(boxes: Subtomograms, tmp_path: Path) -> None:
    labels = np.arange(2 * EACH) % 8
    np.testing.assert_array_equal(np.unique(join_alike(boxes, labels, SETTINGS, tmp_path)), np.arange(8))


def test_maps_are_compared_with_those_of_like_power() -> None:
    rng = np.random.default_rng(0)
    maps = rng.normal(size=(6, 16, 16, 16)).astype(np.float32)
    maps[3] = 2 * np.rot90(maps[0], axes=(0, 1))[np.r_[-1:15]]
    pairs = likest(maps)
    assert (0, 3) in pairs and all(one < other for one, other in pairs)
