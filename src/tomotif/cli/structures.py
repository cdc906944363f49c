"""`tomotif structures`: which complexes come with the package."""

from __future__ import annotations

from rich.table import Table

from tomotif.cli.console import console
from tomotif.io.structure import structure_table


def structures() -> None:
    """List the structures that come with tomotif; any PDB or mmCIF file can be used beside them, by its path."""
    table = Table("name", "what", "mass (kDa)", "radius (Å)", "source")
    for column in table.columns[2:4]:
        column.justify = "right"
    for row in structure_table().to_dict("records"):
        table.add_row(row["name"], row["title"], f"{row['mass_kda']:,.0f}", f"{row['radius']:.0f}", row["source"])
    console.print(table)
