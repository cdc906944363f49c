"""Assemblies that nature did not make: random complexes of globular domains, for networks that must know no complex.

A network that learned to tell hundreds of random complexes apart, in any pose, wedge and noise, measures likeness of
complexes that nobody showed it (Rice et al. 2023, Nat Methods 20:871, do the same with 120 real ones). Simulated
likewise are no real complexes, so nothing that is looked for in a cell was ever seen.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.distance import cdist
from scipy.spatial.transform import Rotation

from tomotif.core import Structure
from tomotif.core.geometry import random_rotations

MASS_KDA = (150.0, 3500.0)
"""Smallest and largest mass, evenly drawn on a logarithmic scale."""
GROUPS: tuple[Any, ...] = (
    "C1",
    "C1",
    "C1",
    "C2",
    "C2",
    "C3",
    "C4",
    "C5",
    "C6",
    "C7",
    "D2",
    "D3",
    "D4",
    "D5",
    "D6",
    "D7",
    "T",
    "O",
)
"""Symmetries drawn from; those named more often are more frequent."""
DOMAIN_KDA = (12.0, 60.0)
"""Smallest and largest mass of a domain in a small protomer; large protomers have larger domains."""
MOST_DOMAINS = 12
BEAD_KDA = 1.1
"""About ten residues a bead …"""
_BEAD_SPREAD = 3.5
"""… whose density has this standard deviation in Å."""
_ANGSTROM3_PER_KDA = 1210.0
"""Volume of protein: Harpaz, Gerstein, Chothia 1994, Structure 2:641."""
_ELECTRONS_PER_KDA = 535.0
_CONTACT = 0.85
"""Domains touch at this share of the sum of their radii."""


def random_assembly(rng: np.random.Generator, name: str, *, largest_radius: float = 150.0) -> Structure:
    """A random complex: domains chained into a protomer, protomers in contact about symmetry axes.

    Parameters
    ----------
    rng
        Decides everything.
    name
        Of the structure.
    largest_radius
        In Å; what comes out larger is drawn again.

    Returns
    -------
    Structure
        Beads of about ten residues, centred; the symmetry is in the title.
    """
    while True:
        made = drawn(rng, name)
        if made.radius <= largest_radius:
            return made


def drawn(rng: np.random.Generator, name: str) -> Structure:
    """One random complex of any size."""
    group = GROUPS[rng.integers(len(GROUPS))]
    copies = Rotation.create_group(group)
    mass = float(np.exp(rng.uniform(*np.log(MASS_KDA))))
    masses = domain_masses(mass / len(copies), rng)
    radii = (3 / (4 * np.pi) * masses * _ANGSTROM3_PER_KDA) ** (1 / 3)
    centres = placed(chained(radii, rng), radii, copies, rng)
    beads = np.concatenate([ellipsoid(m, r, rng) + c for m, r, c in zip(masses, radii, centres, strict=True)])
    positions = np.concatenate([turn.apply(beads) for turn in copies])
    weight = _ELECTRONS_PER_KDA * mass / len(positions)
    return Structure(
        name,
        positions.astype(np.float32),
        np.full(len(positions), weight, np.float32),
        np.full(len(positions), _BEAD_SPREAD, np.float32),
        mass,
        title=f"random assembly of symmetry {group}, {len(masses)} domains a protomer",
        source="made by tomotif",
    ).centred()


def domain_masses(mass: float, rng: np.random.Generator) -> NDArray[np.float64]:
    """Masses in kDa of the domains of a protomer."""
    least, most = (mass / kda for kda in DOMAIN_KDA[::-1])
    count = int(np.clip(round(rng.uniform(least, most)), 1, MOST_DOMAINS))
    share: NDArray[np.float64] = mass * rng.dirichlet(np.full(count, 4.0))
    return share


def chained(radii: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.float64]:
    """Centres of domains, each in contact with one before it and clear of the others; how compact is up to chance."""
    centres, tries = np.zeros((len(radii), 3)), int(rng.integers(2, 30))
    for i in range(1, len(radii)):
        others = rng.integers(i, size=tries)
        steps = random_rotations(tries, rng).apply([0.0, 0.0, 1.0]) * _CONTACT * (radii[i] + radii[others])[:, None]
        places = centres[others] + steps
        gaps = (cdist(places, centres[:i]) / (radii[:i] + radii[i])).min(axis=1)
        middle = np.average(centres[:i], axis=0, weights=radii[:i] ** 3)
        far = np.linalg.norm(places - middle, axis=1)
        clear = gaps >= _CONTACT - 1e-6
        centres[i] = places[np.argmin(np.where(clear, far, np.inf)) if clear.any() else np.argmax(gaps)]
    return centres - np.average(centres, axis=0, weights=radii**3)


def placed(
    centres: NDArray[np.float64], radii: NDArray[np.float64], copies: Rotation, rng: np.random.Generator
) -> NDArray[np.float64]:
    """A protomer turned at random and moved outwards along a random line until it just touches its symmetry copies."""
    turned = random_rotations(1, rng).apply(centres)
    if len(copies) == 1:
        return turned
    direction = random_rotations(1, rng).apply([0.0, 0.0, 1.0])[0]
    others = Rotation.concatenate([c for c in copies if c.magnitude() > 1e-6])
    sums = radii[:, None] + radii
    largest = 2 * float(np.sum(radii)) * len(copies)
    for distance in np.linspace(0.0, largest, 400):
        moved = turned + distance * direction
        if all((cdist(moved, turn.apply(moved)) >= _CONTACT * sums).all() for turn in others):
            return moved
    return turned + largest * direction


def ellipsoid(mass: float, radius: float, rng: np.random.Generator) -> NDArray[np.float64]:
    """Beads of one domain, evenly in an ellipsoid of random axes with the volume of a ball, about the origin."""
    count = max(round(mass / BEAD_KDA), 4)
    axes = np.exp(rng.normal(0.0, 0.25, 3))
    inside = random_rotations(count, rng).apply([0.0, 0.0, 1.0]) * rng.uniform(0, 1, (count, 1)) ** (1 / 3)
    return random_rotations(1, rng).apply(radius * inside * axes / axes.prod() ** (1 / 3))
