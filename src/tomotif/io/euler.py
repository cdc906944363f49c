"""RELION's angles and axes, and ours.

RELION counts vectors x, y, z, right-handed, and gives a particle three Euler angles: ``rot`` about z, ``tilt`` about
the new y, ``psi`` about the newest z (Heymann, Chagoyen & Belnap 2005, doi:10.1016/j.jsb.2005.06.001). They turn the
axes, not the particle: the matrix that takes the reference into the tomogram is the inverse of that rotation,

    A(rot, tilt, psi) = [Rz(rot) Ry(tilt) Rz(psi)]⁻¹ = Rz(-psi) Ry(-tilt) Rz(-rot),

so the reference is first turned by -rot about the fixed z axis, then by -tilt about the fixed y axis, then by -psi
about the fixed z axis; positive means right-handed. ``rot = 90`` alone takes the reference's x to the tomogram's -y.

RELION 4 and 5 may split the orientation (``ParticleSet::getMatrix3x3`` and ``getPosition`` in RELION's source): the
subtomogram is turned first (``rlnTomoSubtomogramRot/Tilt/Psi``) and the particle within it (``rlnAngleRot/Tilt/Psi``),

    A = A_subtomogram · A_particle,      position = coordinate - A_subtomogram · origin,

so the origin shift (Å, ``rlnOriginX/Y/ZAngst``) lies in the frame of the subtomogram, not of the particle. RELION up to
3.1 knows no subtomogram rotation; there A_subtomogram = 1.

A rotation of ours takes the same reference to the same tomogram but acts on zyx vectors. Reversing the order of the
components, P, is a reflection, so the rotation P A P has the rotation vector -P w where A has w.
"""

from __future__ import annotations

import warnings

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.spatial.transform import Rotation


def from_relion(angles: ArrayLike) -> Rotation:
    """Rotations of zyx vectors from RELION's ``rot, tilt, psi``.

    Parameters
    ----------
    angles
        Degrees, shape (n, 3).

    Examples
    --------
    >>> turn = from_relion([[90, 0, 0]])
    >>> turn.apply([0, 0, 1]).round(6).tolist()  # x axis of the reference, as zyx: goes to -y
    [[0.0, -1.0, 0.0]]
    """
    return reverse_axes(Rotation.from_euler("ZYZ", np.asarray(angles, np.float64).reshape(-1, 3), degrees=True).inv())


def to_relion(rotations: Rotation) -> NDArray[np.float64]:
    """RELION's ``rot, tilt, psi`` of rotations of zyx vectors: degrees, shape (n, 3), tilt from 0 to 180.

    Where tilt is 0 or 180 only one combination of rot and psi is defined; psi is then given as 0.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Gimbal lock", category=UserWarning)  # said in the docstring
        return reverse_axes(rotations).inv().as_euler("ZYZ", degrees=True)


def reverse_axes(rotations: Rotation) -> Rotation:
    """The same physical rotations for vectors written in the reverse order of components (xyz ⇄ zyx), shape (n,)."""
    x, y, z, w = rotations.as_quat().reshape(-1, 4).T
    return Rotation.from_quat(np.column_stack([-z, -y, -x, w]))
