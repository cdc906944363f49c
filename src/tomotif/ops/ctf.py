"""The contrast transfer function of the electron microscope, radially symmetric."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch_ctf import calculate_total_phase_shift

VOLTAGE_KV = 300.0
SPHERICAL_ABERRATION_MM = 2.7


def ctf(
    frequency: float | NDArray[np.floating],
    defocus_um: float | NDArray[np.floating],
    *,
    voltage_kv: float = VOLTAGE_KV,
    spherical_aberration_mm: float = SPHERICAL_ABERRATION_MM,
    amplitude_contrast: float = 0.07,
) -> NDArray[np.float32]:
    """Contrast transfer at spatial frequencies, positive for the transfer of bright as bright at low frequency.

    Parameters
    ----------
    frequency
        Spatial frequency in 1/Å, broadcast with the defocus.
    defocus_um
        Defocus in µm, above 0 is underfocus.
    voltage_kv
        Acceleration voltage in kV.
    spherical_aberration_mm
        Spherical aberration in mm.
    amplitude_contrast
        Fraction of amplitude contrast, 0 to 1.

    Returns
    -------
    NDArray[float32]
        Values −1 to 1, in the broadcast shape.

    Notes
    -----
    sin(π λ Δz k² − π/2 Cs λ³ k⁴ + asin A), as in Rohou and Grigorieff 2015, J Struct Biol 192:216; computed by
    torch-ctf.

    Examples
    --------
    >>> round(float(ctf(0.0, 3.0)), 3)  # at low frequency only the amplitude contrast is seen
    0.07
    """

    def tensor(values: float | NDArray[np.floating]) -> torch.Tensor:
        return torch.as_tensor(np.asarray(values, dtype=np.float32))

    phase = calculate_total_phase_shift(
        defocus_um=tensor(defocus_um),
        voltage_kv=tensor(voltage_kv),
        spherical_aberration_mm=tensor(spherical_aberration_mm),
        phase_shift_degrees=tensor(0.0),
        amplitude_contrast_fraction=tensor(amplitude_contrast),
        fftfreq_grid_angstrom_squared=tensor(frequency) ** 2,
    )
    return np.asarray(-torch.sin(phase).numpy())
