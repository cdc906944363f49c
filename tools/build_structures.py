"""Make src/tomotif/resources/structures.npz, the library of complexes, from a folder of PDB and mmCIF files.

    python tools/build_structures.py FOLDER

The folder holds one file a complex, named as in the table below. The coordinates come from the Protein Data Bank, whose
data are in the public domain (CC0). Where an entry's biological assembly is larger than its asymmetric unit, the file
holds the assembly (made from the entry's own operators) or the operators, which are applied here.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from tomotif.io.structure import read_structure, write_library

OUTPUT = Path(__file__).resolve().parents[1] / "src/tomotif/resources/structures.npz"


class Entry(NamedTuple):
    """A complex: its name in the library, its file, what it is, and how the file becomes the assembly."""

    name: str
    file: str
    title: str
    note: str
    assembly: str = "asu"


ENTRIES = [
    Entry("3gl1", "3gl1.pdb.gz", "Ssb1 ATPase domain", "assembly 1, a monomer", "1"),
    Entry("1s3x", "1s3x.pdb.gz", "Hsp70 ATPase domain", "monomer"),
    # a zinc ion between chains A and B holds Get3's dimer together, so the asymmetric unit is the assembly
    Entry("3h84", "3h84.pdb.gz", "Get3", "dimer of the asymmetric unit"),
    Entry("3d2f", "3d2f.pdb.gz", "Sse1–Hsp70", "assembly 1, a dimer", "1"),
    Entry("1ecp", "1ecp.cif.gz", "purine nucleoside phosphorylase", "hexamer"),
    Entry("2cg9", "2cg9.pdb.gz", "Hsp90–Sba1", "dimer of dimers"),
    Entry("1u6g", "1u6g.pdb.gz", "CAND1–CUL1–ROC1", "trimer"),
    Entry("1e6v", "1e6v.pdb.gz", "methyl-coenzyme M reductase", "hexamer"),
    Entry("1gyt", "1gyt.pdb.gz", "PepA aminopeptidase", "hexamer"),
    Entry("5t4o", "5t4o.cif.gz", "F1Fo ATP synthase", "22-mer; backbone model, residues at full weight"),
    Entry("5tbz", "5tbz_rnap.cif.gz", "bacterial RNA polymerase", "core with NusG"),
    Entry("1w6t", "1w6t_octamer.cif.gz", "enolase", "octamer"),
    Entry("1wcm", "1wcm.pdb.gz", "RNA polymerase II", "12-mer"),
    Entry("2fha", "2fha_24mer.cif.gz", "ferritin", "24-mer"),
    Entry("3cf3", "3cf3_hexamer.cif.gz", "p97", "hexamer"),
    Entry("1qvr", "1qvr_hexamer.cif.gz", "ClpB", "hexamer, a spiral"),
    Entry("1bxn", "1bxn_L8S8.cif.gz", "RuBisCO", "L8S8"),
    Entry("3j9i", "3j9i.pdb.gz", "20S proteasome", "28-mer"),
    Entry("1htq", "1htq_dodecamer_ca.cif.gz", "glutamine synthetase", "dodecamer; Cα model, residues at full weight"),
    Entry("1oel", "1oel_14mer.cif.gz", "GroEL", "14-mer"),
    Entry("4v4r", "4v4r_30s.pdb.gz", "30S ribosomal subunit", "30S part of the entry"),
    Entry("1aon", "1aon.pdb.gz", "GroEL–GroES", "21-mer"),
    Entry("4v8r", "4v8r_single_cct.cif.gz", "CCT/TRiC", "one 16-mer of the entry"),
    Entry("3l5q", "3l5q_20S_blm10.cif.gz", "20S proteasome with Blm10", "20S with two Blm10"),
    Entry("4v5d_50s", "4v5d_50S.cif.gz", "50S ribosomal subunit", "50S part of the entry"),
    Entry("4v5d", "4v5d.cif.gz", "70S ribosome", "with mRNA and tRNAs"),
]


def main(folder: Path) -> None:
    """Read every entry from the folder and write the library, from light to heavy."""
    made = []
    for entry in ENTRIES:
        pdb = entry.name[:4].upper()
        read = read_structure(folder / entry.file, assembly=entry.assembly, detail="beads")
        source = f"PDB {pdb} (CC0), {entry.note}"
        made.append((replace(read, name=entry.name, title=entry.title, source=source), pdb))
    write_library(OUTPUT, sorted(made, key=lambda pair: pair[0].mass_kda))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
