"""`tomotif simulate`: tomograms of known structures, with the truth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter, validators
from pydantic import ValidationError, model_validator
from rich.table import Table

from tomotif.cli.app import one_line
from tomotif.cli.console import console, progress_bar
from tomotif.core import InputError
from tomotif.io.structure import load_structure
from tomotif.pipelines.simulate import (
    DISTRACTOR,
    USUALLY_KEPT,
    Kept,
    TomogramSpec,
    check_spec,
    estimate,
    is_spec,
    read_spec,
)
from tomotif.pipelines.stages import TOMOGRAMS, Run, simulate_stage
from tomotif.tasks.simulate import (
    FilamentSettings,
    GoldSettings,
    MembraneSettings,
    TomogramSettings,
    signal_to_noise,
)

InSpecOnly = Parameter(parse=False)
AtLeastOne = Parameter(validator=validators.Number(gte=1))


class TomogramOptions(TomogramSettings):
    """Settings on the command line: those given win over a spec's, which are checked once they are complete."""

    membranes: Annotated[tuple[MembraneSettings, ...], InSpecOnly] = ()
    filaments: Annotated[tuple[FilamentSettings, ...], InSpecOnly] = ()
    gold: Annotated[tuple[GoldSettings, ...], InSpecOnly] = ()

    @model_validator(mode="after")
    def _ordered(self) -> TomogramOptions:
        return self

    def given(self) -> dict[str, Any]:
        """The options that were on the command line."""
        return self.model_dump(include=set(self.model_fields_set))


def simulate(
    structures: list[str],
    *,
    output: Annotated[Path, Parameter(alias="-o")] = Path("simulated"),
    count: Annotated[int, AtLeastOne] = 1,
    seed: Annotated[int, Parameter(validator=validators.Number(gte=0))] = 0,
    processes: Annotated[int, AtLeastOne] = 1,
    keep: tuple[Kept, ...] = USUALLY_KEPT,
    settings: Annotated[TomogramOptions, Parameter(name="*")] = TomogramOptions(),
    dry_run: Annotated[bool, Parameter(negative="")] = False,
    overwrite: bool = False,
) -> None:
    """Simulate tomograms full of known structures, with every particle's class, position and orientation.

    Parameters
    ----------
    structures
        Names (`tomotif structures`), or PDB or mmCIF files; each is a class. Or one spec: a YAML file of settings, or
        a preset: simple, crowded, randomised, mycoplasma.
    output
        Run folder to write: tomograms, labels, tilt series, and the true particles.
    count
        Number of tomograms.
    seed
        Seed of the random numbers; the same seed makes the same files.
    processes
        Tomograms made at one time, each by a process of its own. They share the processors.
    keep
        What to write beside tomograms and particles: labels (class and instance of every voxel), noise_free (the
        reconstruction without noise), density (the specimen itself), tilt_series (the images).
    settings
        Volume, crowding, microscope and noise. What is given here wins over a spec; membranes, filaments and gold are
        set in a spec only.
    dry_run
        Show what would be made and about how much it takes; write nothing.
    overwrite
        Replace an earlier run in the output folder.
    """
    spec = complete_spec(structures, settings.given())
    if dry_run:
        check_spec(spec)
        console.print(forecast(spec, count, processes, keep))
        return
    run = Run(output, overwrite, progress_bar)
    folder = simulate_stage(spec, run, count=count, seed=seed, processes=processes, keep=keep)
    console.print(summary(spec, folder.results["classes"]))
    console.print(reached([made["occupancy"] for made in folder.results["tomograms"]]))
    console.print(f"wrote {folder / TOMOGRAMS} ({folder.results['particles']} particles)")


def complete_spec(names: Sequence[str], changes: Mapping[str, Any]) -> TomogramSpec:
    """The spec that was named, with the options that were given; all that is wrong is told in one line."""
    try:
        return read_spec(names, changes)
    except ValidationError as error:
        problems = one_line(error)
    raise InputError(f"{names[0]}: {problems}" if is_spec(names[0]) else problems)  # out here it has no context


def summary(spec: TomogramSpec, particles: Mapping[str, int]) -> Table:
    """How many of each class there are, and how far each stands out from the noise."""
    table = table_of("class", "what", numbers=("mass (kDa)", "particles", "SNR", "SNR below 1/30 Å⁻¹"))
    if spec.snr is not None:
        table.title = f"SNR {spec.snr:g} of {spec.snr_reference} over a box of {spec.box_px} voxels"
    if spec.vary:
        table.caption = f"every tomogram drew {', '.join(sorted(spec.vary))}: see run.json"
    at_membranes = [name for m in spec.membranes for name in (*m.bound, *m.crossing)]
    structures = {s.name: s for s in map(load_structure, [*spec.structures, *at_membranes])}
    rows = signal_to_noise(list(structures.values()), spec.settings())
    for structure, row in zip(structures.values(), rows.itertuples(), strict=True):
        number, mass = str(particles.get(structure.name, 0)), f"{structure.mass_kda:,.0f}"
        table.add_row(structure.name, structure.title, mass, number, f"{row.snr:.3f}", f"{row.snr_band:.3f}")
    if DISTRACTOR in particles:
        table.add_row(DISTRACTOR, ", ".join(spec.distractors), "", str(particles[DISTRACTOR]), "", "")
    return table


def reached(occupancies: Sequence[float]) -> str:
    """Fraction of the specimen inside complexes, in words.

    >>> reached([0.2, 0.25])
    'occupancy 0.200 to 0.250'
    """
    low, high = (f"{value:.3f}" for value in (min(occupancies), max(occupancies)))
    return f"occupancy {low}" if low == high else f"occupancy {low} to {high}"


def forecast(spec: TomogramSpec, count: int, processes: int, keep: Sequence[Kept]) -> Table:
    """What would be made, and about what it takes."""
    expected = estimate(spec, count=count, processes=processes, keep=keep)
    table = table_of("what", numbers=("about",))
    table.title = f"{count} tomogram{'s' if count > 1 else ''} of {' × '.join(map(str, spec.shape))} voxels (zyx)"
    table.add_row("voxels of a tomogram", f"{expected.voxels:,}")
    for name, number in expected.particles.items():
        table.add_row(f"{name} in a tomogram", f"{number:,}")
    table.add_row("time in all, one after the other", f"{expected.seconds:,.0f} s")
    table.add_row("memory", f"{expected.memory_gb:.1f} GB")
    table.add_row("disk in all", f"{expected.disk_gb:.2f} GB")
    return table


def table_of(*texts: str, numbers: Sequence[str] = ()) -> Table:
    """An empty table with these columns."""
    table = Table(*texts, *numbers)
    for column in table.columns[len(texts) :]:
        column.justify = "right"
    return table
