"""Structures: PDB and mmCIF files, and the library of complexes that the package carries."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal, NamedTuple

import gemmi
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from tomotif.core import InputError, Structure, UnknownNameError

Detail = Literal["atoms", "beads"]

ASYMMETRIC_UNIT = "asu"
POSITION_STEP = 0.01
"""Å; positions are stored as int16 multiples of it, so ±327 Å from the centre."""

_LIBRARY = "structures.npz"
_SUFFIXES = (".pdb", ".pdb.gz", ".ent", ".ent.gz", ".cif", ".cif.gz", ".mmcif", ".mmcif.gz")
_WATER = gemmi.find_tabulated_residue("HOH")
_BACKBONE = frozenset(("N", "CA", "C", "O", "OXT"))
_PHOSPHATE = frozenset(("P", "OP1", "OP2", "OP3", "O1P", "O2P", "O3P", "O5'", "O5*"))
_RESIDUE_SPREAD = 2.2
"""Å; standard deviation along one axis of the atoms of an average residue about its Cα."""


class _Atoms(NamedTuple):
    """Atoms of a model in columns; ``bead`` numbers the group each belongs to."""

    positions: NDArray[np.float64]
    weights: NDArray[np.float64]
    variances: NDArray[np.float64]
    bead: NDArray[np.int64]
    mass: float


def read_structure(path: str | Path, *, assembly: str | None = None, detail: Detail = "atoms") -> Structure:
    """Read a PDB or mmCIF file, plain or gzipped.

    Every residue weighs what its kind weighs, hydrogens included, whichever of its atoms the model has: so a model of
    the backbone, or of Cα atoms alone, scatters like the whole protein. Water is left out, of alternative
    conformations the first is taken, and occupancies are not used.

    Parameters
    ----------
    path
        File to read.
    assembly
        Name of the biological assembly; ``"asu"`` takes the coordinates as they are. By default the first assembly
        the file defines, else the coordinates as they are.
    detail
        ``"atoms"``, or ``"beads"``: a point each for backbone and side chain of a residue, and for phosphate, sugar
        and base of a nucleotide.

    Returns
    -------
    Structure
        In the file's frame, not centred.

    Raises
    ------
    InputError
        When the file is missing, cannot be read or has no atoms, or when it lacks the assembly asked for.
    """
    file = Path(path)
    if not file.is_file():
        raise InputError(f"no structure file {file}; expected a PDB or mmCIF file ({', '.join(_SUFFIXES)})")
    try:
        model_file = gemmi.read_structure(str(file))
    except (RuntimeError, ValueError, OSError) as error:
        raise InputError(f"cannot read {file} as PDB or mmCIF: {error}") from error
    if len(model_file) == 0 or model_file[0].count_atom_sites() == 0:
        raise InputError(f"no atoms in {file}; expected a PDB or mmCIF file with coordinates")
    model_file.setup_entities()
    model_file.remove_alternative_conformations()
    model_file.remove_hydrogens()
    model_file.remove_waters()
    atoms = _read_atoms(_assemble(model_file, assembly, file))
    if len(atoms.weights) == 0:
        raise InputError(f"only water and hydrogens in {file}; expected the atoms of a macromolecule")
    positions, weights, variances = _as_beads(atoms) if detail == "beads" else atoms[:3]
    name = file.name.split(".")[0]
    title = dict(model_file.info).get("_struct.title", "")
    return Structure(
        name=name,
        positions=positions.astype(np.float32),
        weights=weights.astype(np.float32),
        spreads=np.sqrt(variances).astype(np.float32),
        mass_kda=atoms.mass / 1000,
        title=title,
        source=f"file {file.name}",
    )


def _assemble(model_file: gemmi.Structure, assembly: str | None, path: Path) -> gemmi.Model:
    known = {a.name: a for a in model_file.assemblies}
    if assembly == ASYMMETRIC_UNIT or (assembly is None and not known):
        return model_file[0]
    name = next(iter(known)) if assembly is None else assembly
    if name not in known:
        raise InputError(
            f"{path} has no biological assembly {name!r}; it has {', '.join(known) or 'none'}; "
            f"take one of these or {ASYMMETRIC_UNIT!r} for the coordinates as they are"
        )
    return gemmi.make_assembly(known[name], model_file[0], gemmi.HowToNameCopiedChain.Short)


def _read_atoms(model: gemmi.Model) -> _Atoms:
    """Atoms with weights in electrons, the variance of each one's density and the bead each belongs to."""
    rows: list[tuple[float, float, float, float, float, int]] = []
    mass, bead = 0.0, 0
    for residue in (r for chain in model for r in chain if len(r)):
        kind = gemmi.find_tabulated_residue(residue.name)
        electrons = np.array([a.element.atomic_number for a in residue], dtype=float)
        modelled = electrons.sum()
        residue_mass, residue_electrons, hydrogens = _content(residue, kind)
        # what the model lacks lies around what it has
        missing = max(0.0, 1 - modelled / (residue_electrons - hydrogens)) * _RESIDUE_SPREAD**2
        parts = [_part(a.name, kind) for a in residue]
        for atom, charge, part in zip(residue, electrons, parts, strict=True):
            z, y, x = atom.pos.z, atom.pos.y, atom.pos.x
            variance = max(atom.b_iso, 0.0) / (8 * np.pi**2) + missing
            rows.append((z, y, x, charge * residue_electrons / modelled, variance, bead + part))
        mass += residue_mass
        bead += 3
    table = np.array(rows, dtype=float).reshape(-1, 6)
    return _Atoms(table[:, :3], table[:, 3], table[:, 4], table[:, 5].astype(np.int64), mass)


def _content(residue: gemmi.Residue, kind: gemmi.ResidueInfo) -> tuple[float, float, int]:
    """Mass in Da and electrons of a residue, hydrogens included, and the number of these.

    Carbon, nitrogen, oxygen and sulphur have half as many electrons as mass units and hydrogen as many, so a residue
    of mass m with h hydrogens has (m + h) / 2 electrons.
    """
    if kind.is_amino_acid() or kind.is_nucleic_acid():
        mass, hydrogens = kind.weight - _WATER.weight, kind.hydrogen_count - _WATER.hydrogen_count
        return mass, (mass + hydrogens) / 2, hydrogens
    hydrogens = kind.hydrogen_count if kind.found() else 0
    mass = sum(a.element.weight for a in residue) + 1.008 * hydrogens
    return mass, sum(a.element.atomic_number for a in residue) + hydrogens, hydrogens


def _part(atom: str, kind: gemmi.ResidueInfo) -> int:
    """Which of a residue's three beads an atom belongs to."""
    if kind.is_amino_acid():
        return 0 if atom in _BACKBONE else 1
    if kind.is_nucleic_acid():
        return 0 if atom in _PHOSPHATE else 1 if atom.endswith(("'", "*")) else 2
    return 0


def _as_beads(atoms: _Atoms) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Position, weight and variance along one axis of every bead."""
    _, bead = np.unique(atoms.bead, return_inverse=True)
    weights = np.bincount(bead, atoms.weights).astype(np.float64)
    mean = np.stack([np.bincount(bead, atoms.weights * axis) for axis in atoms.positions.T], axis=1) / weights[:, None]
    squares = np.sum((atoms.positions - mean[bead]) ** 2, axis=1) / 3 + atoms.variances
    return mean, weights, np.bincount(bead, atoms.weights * squares) / weights


def write_library(path: Path, entries: Sequence[tuple[Structure, str]]) -> None:
    """Pack structures, each with its PDB id, into one compact file for :func:`load_structure`.

    Positions are int16 multiples of 0.01 Å about the centre of mass, weights and spreads float16, the rest JSON.
    """
    centred = [structure.centred() for structure, _ in entries]
    step = np.concatenate([np.round(s.positions / POSITION_STEP) for s in centred])
    if np.abs(step).max() > np.iinfo(np.int16).max:
        raise InputError(f"expected structures within 327 Å of their centre, got {np.abs(step).max() * POSITION_STEP}")
    table = [
        {"name": s.name, "title": s.title, "pdb": pdb, "mass_kda": round(s.mass_kda, 1), "source": s.source}
        for s, (_, pdb) in zip(centred, entries, strict=True)
    ]
    np.savez_compressed(
        path,
        positions=step.astype(np.int16),
        weights=np.concatenate([s.weights for s in centred]).astype(np.float16),
        spreads=np.concatenate([s.spreads for s in centred]).astype(np.float16),
        first=np.cumsum([0, *map(len, centred)]),
        table=np.frombuffer(json.dumps(table).encode(), dtype=np.uint8),
    )


@cache
def _library() -> dict[str, tuple[dict[str, Any], Structure]]:
    """The packaged complexes by name, read once."""
    with files("tomotif.resources").joinpath(_LIBRARY).open("rb") as stream, np.load(stream) as packed:
        positions = packed["positions"].astype(np.float32) * np.float32(POSITION_STEP)
        weights, spreads = packed["weights"].astype(np.float32), packed["spreads"].astype(np.float32)
        first, table = packed["first"], json.loads(packed["table"].tobytes())
    return {
        row["name"]: (
            row,
            Structure(
                name=row["name"],
                positions=positions[a:b],
                weights=weights[a:b],
                spreads=spreads[a:b],
                mass_kda=row["mass_kda"],
                title=row["title"],
                source=row["source"],
            ),
        )
        for row, a, b in zip(table, first[:-1], first[1:], strict=True)
    }


def structure_names() -> list[str]:
    """Names of the packaged complexes, from light to heavy."""
    return list(_library())


def structure_table() -> pd.DataFrame:
    """The packaged complexes, from light to heavy.

    Returns
    -------
    DataFrame
        ``name``, ``title``, ``pdb``, ``mass_kda`` (hydrogens included), ``radius`` (Å, from the centre of mass to the
        farthest point), ``n_points`` and ``source``.
    """
    return pd.DataFrame(list(_rows()))


def _rows() -> Iterator[dict[str, Any]]:
    for row, structure in _library().values():
        extra = {"radius": round(structure.radius, 1), "n_points": len(structure), "source": row["source"]}
        yield {key: row[key] for key in ("name", "title", "pdb", "mass_kda")} | extra


def load_structure(name_or_path: str | Path) -> Structure:
    """A packaged complex by name (case does not matter), else a PDB or mmCIF file.

    Parameters
    ----------
    name_or_path
        Such as ``"4v5d"`` or ``"models/mine.cif.gz"``.

    Returns
    -------
    Structure
        Its centre of mass is the origin.

    Raises
    ------
    UnknownNameError
        When it is neither a name of the library nor like a path; near names are listed.
    InputError
        When the file cannot be read.

    Examples
    --------
    >>> load_structure("1BXN").title
    'RuBisCO'
    """
    name = str(name_or_path)
    if name.lower() in _library():
        return _library()[name.lower()][1]
    path = Path(name_or_path)
    if path.exists() or len(path.parts) > 1 or name.lower().endswith(_SUFFIXES):
        return read_structure(path).centred()
    raise UnknownNameError("structure", name, structure_names())
