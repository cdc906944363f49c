"""Fourier shell correlation against closed forms: equal maps, independent noise, known mixtures, known bands."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from tomotif.core import InputError
from tomotif.ops.fsc import corrected_fsc, fsc, randomise_phases, resolution_at, soft_sphere

BOX = 48
VOXEL = 10.0


def noise(seed: int, box: int = BOX) -> NDArray[np.float64]:
    return np.random.default_rng(seed).standard_normal((box, box, box))


def low_pass(volume: NDArray[np.float64], shell: float) -> NDArray[np.float64]:
    """Keep the coefficients up to this shell (multiples of 1 / box)."""
    k = np.fft.fftfreq(len(volume)) * len(volume)
    radius = np.sqrt(k[:, None, None] ** 2 + k[None, :, None] ** 2 + k[None, None, :] ** 2)
    return np.fft.ifftn(np.where(radius <= shell, np.fft.fftn(volume), 0)).real


@pytest.mark.parametrize("box", [16, 33, 48])
def test_equal_maps_agree_to_twice_the_voxel(box: int) -> None:
    frequencies, curve = fsc(noise(0, box), 3 * noise(0, box) + 1, VOXEL)
    assert curve == pytest.approx(np.ones(box // 2 + 1))
    assert frequencies[1] == pytest.approx(1 / (box * VOXEL))
    expected = 2 * VOXEL if box % 2 == 0 else VOXEL * box / (box // 2)
    assert resolution_at(frequencies, curve, 0.143) == resolution_at(frequencies, curve, 0.5) == pytest.approx(expected)


def test_independent_noise_does_not_correlate() -> None:
    curves = np.array([fsc(noise(2 * s), noise(2 * s + 1), VOXEL)[1] for s in range(8)])
    frequencies = fsc(noise(0), noise(1), VOXEL)[0]
    assert np.abs(curves[:, 6:]).max() < 0.12
    assert np.abs(curves[:, 1:].mean()) < 0.02
    assert min(resolution_at(frequencies, c, 0.5) for c in curves) >= BOX * VOXEL / 2
    assert np.median([resolution_at(frequencies, c, 0.5) for c in curves]) == BOX * VOXEL


def test_opposite_maps_anticorrelate_and_end_at_the_box_length() -> None:
    frequencies, curve = fsc(noise(0), -noise(0), VOXEL)
    assert curve[1:] == pytest.approx(-np.ones(BOX // 2))
    assert resolution_at(frequencies, curve) == pytest.approx(BOX * VOXEL)


@settings(max_examples=10, deadline=None)
@given(st.floats(0.3, 3.0), st.integers(0, 1000))
def test_half_maps_with_noise_have_the_known_correlation(snr: float, seed: int) -> None:
    signal, first, second = (noise(3 * seed + i) for i in range(3))
    curve = fsc(np.sqrt(snr) * signal + first, np.sqrt(snr) * signal + second, VOXEL)[1]
    assert curve[8:].mean() == pytest.approx(snr / (1 + snr), abs=0.03)  # Rosenthal & Henderson: SNR / (1 + SNR)


@pytest.mark.parametrize("shell", [6, 10, 17])
def test_maps_that_share_a_band_are_resolved_to_its_edge(shell: int) -> None:
    common = low_pass(noise(0), shell)
    a, b = (common + noise(s) - low_pass(noise(s), shell) for s in (1, 2))
    frequencies, curve = fsc(a, b, VOXEL)
    assert curve[1:shell].min() > 0.99
    assert BOX * VOXEL / (shell + 1) < resolution_at(frequencies, curve, 0.5) < BOX * VOXEL / (shell - 0.5)
    assert resolution_at(frequencies, curve, 0.143) <= resolution_at(frequencies, curve, 0.5)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.floats(-1, 1), min_size=2, max_size=40), st.floats(0.01, 0.99))
def test_resolution_stays_between_its_bounds(values: list[float], threshold: float) -> None:
    frequencies = np.arange(len(values)) / (2 * (len(values) - 1) * VOXEL)
    found = resolution_at(frequencies, np.array(values), threshold)
    assert 2 * VOXEL - 1e-9 <= found <= 1 / frequencies[1] + 1e-9


def test_the_edge_of_a_mask_is_no_common_feature() -> None:
    mask = soft_sphere((BOX,) * 3, 5.0, 3.0)
    a, b = noise(1) + 5, noise(2) + 5
    assert fsc(a * mask, b * mask, VOXEL)[1][1:5].min() > 0.99
    assert fsc(a, b, VOXEL, mask)[1][1:5].max() < 0.8


def test_a_tight_mask_correlates_noise_and_the_correction_takes_it_off() -> None:
    mask = soft_sphere((BOX,) * 3, 6.0, 2.0)
    raw, corrected = [], []
    for seed in range(6):  # a strong common band up to shell 8, independent noise beyond
        common = 5 * low_pass(noise(50 + seed), 8)
        a, b = (common + noise(s) - low_pass(noise(s), 8) for s in (2 * seed, 2 * seed + 1))
        raw.append(fsc(a, b, VOXEL, mask)[1])
        corrected.append(corrected_fsc(a, b, VOXEL, mask, np.random.default_rng(seed))[1])
    assert np.mean(raw, axis=0)[11:14].min() > 0.2
    assert np.abs(np.mean(corrected, axis=0)[11:14]).max() < 0.1
    assert np.mean(corrected, axis=0)[1:8].min() > 0.97


def test_random_phases_keep_amplitudes_and_the_band_below() -> None:
    volume = noise(4)
    other = randomise_phases(volume, 8, np.random.default_rng(0))
    before, after = np.fft.rfftn(volume), np.fft.rfftn(other)
    assert np.abs(after) == pytest.approx(np.abs(before), rel=1e-6, abs=1e-6)
    curve = fsc(volume, other, VOXEL)[1]
    assert curve[1:7] == pytest.approx(1.0)
    assert np.abs(curve[10:]).max() < 0.15


def test_soft_sphere_has_the_asked_volume() -> None:
    mask = soft_sphere((BOX,) * 3, 12.0, 4.0)
    assert mask[24, 24, 24 + 12] == 1
    assert mask[24, 24, 24 + 16] == 0
    assert mask[24 - 14, 24, 24] == pytest.approx(0.5)
    assert mask.sum() == pytest.approx(4 / 3 * np.pi * 14**3, rel=0.02)


def test_shapes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(InputError, match="cubic"):
        fsc(np.zeros((8, 8, 8)), np.zeros((9, 9, 9)), VOXEL)
    with pytest.raises(InputError, match="cubic"):
        fsc(np.zeros((8, 8, 6)), np.zeros((8, 8, 6)), VOXEL)
    with pytest.raises(InputError, match="cubic"):
        fsc(np.zeros((8, 8, 8)), np.zeros((8, 8, 8)), VOXEL, np.ones((4, 4, 4)))
