"""Structure files and the packaged library."""

from __future__ import annotations

import gzip
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tomotif.cli.structures import structures
from tomotif.core import InputError, Structure, UnknownNameError
from tomotif.io.structure import load_structure, read_structure, structure_names, structure_table, write_library

HSP70 = Path(__file__).parent / "data/structures/1s3x.pdb.gz"

# kDa of the atoms that the PDB entries hold, without hydrogens and water
HEAVY_ATOM_MASS = {
    "1s3x": 39, "3gl1": 39, "3h84": 68, "1ecp": 143, "2cg9": 157, "3d2f": 102, "1u6g": 205, "1e6v": 254, "1gyt": 307,
    "5tbz": 331, "1w6t": 348, "1wcm": 410, "2fha": 449, "3cf3": 454, "1qvr": 520, "1bxn": 480, "3j9i": 610,
    "1oel": 714, "1aon": 781, "4v4r": 729, "4v5d_50s": 1291, "4v5d": 2094, "4v8r": 853, "3l5q": 1048,
}  # fmt: skip
# of models that lack most atoms, the mass of the whole complex
WHOLE_MASS = {"5t4o": 530, "1htq": 620}

ALANINE = """\
ATOM      1  N   ALA A   1      11.104   6.134  -6.504  1.00 20.00           N
ATOM      2  CA  ALA A   1      11.639   6.071  -5.147  1.00 20.00           C
ATOM      3  C   ALA A   1      13.139   5.871  -5.147  1.00 20.00           C
ATOM      4  O   ALA A   1      13.639   5.271  -4.147  1.00 20.00           O
ATOM      5  CB  ALA A   1      11.239   7.271  -4.347  1.00 20.00           C
HETATM    6  O   HOH A   2      20.000  20.000  20.000  1.00 20.00           O
END
"""


def test_library_has_real_complexes_of_all_sizes() -> None:
    table = structure_table()
    assert len(table) >= 24
    assert table["name"].is_unique and table["source"].str.startswith("PDB ").all()
    assert table["mass_kda"].is_monotonic_increasing
    assert table["mass_kda"].min() < 45 and table["mass_kda"].max() > 2000
    assert set(table["name"]) == set(HEAVY_ATOM_MASS) | set(WHOLE_MASS)


def test_library_masses_are_those_of_the_entries_with_hydrogens() -> None:
    # hydrogens are 7.5 % of a protein's heavy atoms and 4 % of RNA's; residues with missing atoms weigh in whole
    masses = structure_table().set_index("name")["mass_kda"]
    for name, heavy in HEAVY_ATOM_MASS.items():
        assert 1.03 * heavy < masses[name] < 1.14 * heavy, name
    for name, whole in WHOLE_MASS.items():
        assert masses[name] == pytest.approx(whole, rel=0.05), name


def test_library_weights_are_electrons_and_positions_are_centred() -> None:
    for name in structure_names():
        structure = load_structure(name)
        assert structure.weights.sum() / structure.mass_kda == pytest.approx(530, rel=0.02), name
        assert np.abs(structure.centre_of_mass).max() < 0.05, name
        assert structure.spreads.min() > 0 and structure.spreads.max() < 4, name


def test_library_radii_are_those_of_the_molecules() -> None:
    # GroEL is 137 Å across and 146 Å tall; ferritin's shell is 120 Å across
    assert load_structure("1oel").radius == pytest.approx(np.hypot(137, 146) / 2, rel=0.1)
    assert load_structure("2fha").radius == pytest.approx(60, rel=0.15)
    shell = np.linalg.norm(load_structure("2fha").positions, axis=1)
    assert np.percentile(shell, 1) > 30  # hollow


def test_names_are_found_in_any_case_and_near_names_are_told() -> None:
    assert load_structure("4V5D").title == "70S ribosome"
    with pytest.raises(UnknownNameError, match="unknown structure '1bxm'; did you mean '1bxn'"):
        load_structure("1bxm")


def test_a_file_is_read_without_water_and_hydrogens_are_counted(tmp_path: Path) -> None:
    path = tmp_path / "ala.pdb"
    path.write_text(ALANINE)
    structure = read_structure(path)
    assert len(structure) == 5
    assert structure.weights.sum() == pytest.approx(38, abs=0.1)  # C3 H5 N O in a chain
    assert structure.mass_kda == pytest.approx(0.07108, abs=1e-4)
    np.testing.assert_allclose(structure.positions[0], [-6.504, 6.134, 11.104], atol=1e-3)  # zyx
    np.testing.assert_allclose(structure.spreads, np.sqrt(20 / (8 * np.pi**2)), rtol=0.02)


def test_a_residue_weighs_the_same_whichever_atoms_are_modelled(tmp_path: Path) -> None:
    path = tmp_path / "ca.pdb"
    path.write_text("\n".join(line for line in ALANINE.splitlines() if " CA " in line or line == "END"))
    structure = read_structure(path)
    assert structure.weights.tolist() == pytest.approx([38], abs=0.1)
    assert structure.spreads[0] > 1.5  # it stands for a whole residue


def test_beads_keep_mass_centre_and_gyration_of_the_atoms() -> None:
    atoms, beads = read_structure(HSP70), read_structure(HSP70, detail="beads")
    assert len(beads) < len(atoms) / 3
    assert beads.weights.sum() == pytest.approx(atoms.weights.sum(), rel=1e-5)
    np.testing.assert_allclose(beads.centre_of_mass, atoms.centre_of_mass, atol=1e-3)

    def second_moment(s: Structure) -> float:
        return s.radius_of_gyration**2 + 3 * np.average(s.spreads**2, weights=s.weights)

    assert second_moment(beads) == pytest.approx(second_moment(atoms), rel=1e-4)


def test_the_library_is_what_the_file_says() -> None:
    packed, read = load_structure("1s3x"), read_structure(HSP70, detail="beads").centred()
    np.testing.assert_allclose(packed.positions, read.positions, atol=0.006)
    np.testing.assert_allclose(packed.weights, read.weights, rtol=1e-3)


def test_assemblies_are_made_from_the_file(tmp_path: Path) -> None:
    path = tmp_path / "dimer.pdb"
    path.write_text(
        "REMARK 350 BIOMOLECULE: 1\n"
        "REMARK 350 AUTHOR DETERMINED BIOLOGICAL UNIT: DIMERIC\n"
        "REMARK 350 APPLY THE FOLLOWING TO CHAINS: A\n"
        "REMARK 350   BIOMT1   1  1.000000  0.000000  0.000000        0.00000\n"
        "REMARK 350   BIOMT2   1  0.000000  1.000000  0.000000        0.00000\n"
        "REMARK 350   BIOMT3   1  0.000000  0.000000  1.000000        0.00000\n"
        "REMARK 350   BIOMT1   2 -1.000000  0.000000  0.000000        0.00000\n"
        "REMARK 350   BIOMT2   2  0.000000 -1.000000  0.000000        0.00000\n"
        "REMARK 350   BIOMT3   2  0.000000  0.000000  1.000000       50.00000\n" + ALANINE
    )
    monomer, dimer = read_structure(path, assembly="asu"), read_structure(path)
    assert len(dimer) == 2 * len(monomer) and dimer.mass_kda == pytest.approx(2 * monomer.mass_kda)
    np.testing.assert_allclose(dimer.positions[5:], monomer.positions * [1, -1, -1] + [50, 0, 0], atol=2e-3)
    with pytest.raises(InputError, match="no biological assembly '7'; it has 1"):
        read_structure(path, assembly="7")


def test_files_that_are_no_structures_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no structure file"):
        load_structure(tmp_path / "missing.pdb")
    empty = tmp_path / "empty.pdb"
    empty.write_text("REMARK nothing\n")
    with pytest.raises(InputError, match="no atoms"):
        read_structure(empty)
    text = tmp_path / "text.cif"
    text.write_text("this is no cif")
    with pytest.raises(InputError, match=r"cannot read .*text.cif"):
        read_structure(text)
    broken = tmp_path / "broken.pdb.gz"
    broken.write_bytes(gzip.compress(ALANINE.encode())[:60])
    with pytest.raises(InputError, match="broken"):
        read_structure(broken)
    water = tmp_path / "water.pdb"
    water.write_text("\n".join(ALANINE.splitlines()[5:]))
    with pytest.raises(InputError, match="only water"):
        read_structure(water)


def test_the_library_is_small_and_holds_no_objects(tmp_path: Path) -> None:
    path = tmp_path / "library.npz"
    structure = replace(load_structure("1s3x"), name="mine")
    write_library(path, [(structure, "1S3X")])
    with np.load(path, allow_pickle=False) as packed:
        assert packed["positions"].dtype == np.int16 and packed["table"].dtype == np.uint8
    from importlib.resources import files

    assert len(files("tomotif.resources").joinpath("structures.npz").read_bytes()) <= 4_000_000
    far = replace(structure, positions=structure.positions * 20)
    with pytest.raises(InputError, match="within 327 Å"):
        write_library(path, [(far, "1S3X")])


def test_the_command_lists_the_library(capsys: pytest.CaptureFixture[str]) -> None:
    structures()
    listed = capsys.readouterr().out
    assert all(name in listed for name in structure_names())
    assert "2,208" in listed and "kDa" in listed
