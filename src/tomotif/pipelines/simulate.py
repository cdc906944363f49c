"""Simulated tomograms on disk: what a spec asks for, drawn for each tomogram, made in one process or in several."""

from __future__ import annotations

import math
import os
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.resources import files
from multiprocessing import get_context
from multiprocessing.queues import SimpleQueue
from pathlib import Path
from typing import Any, Literal

import numpy as np
import yaml
from pydantic import Field, ValidationError, model_validator

from tomotif.core import InputError, Particles, Progress, Structure, Tomogram, UnknownNameError
from tomotif.core.errors import TomotifError
from tomotif.io.environment import cpu_count
from tomotif.io.files import existing_file, read_json, write_json
from tomotif.io.mrc import open_tomogram, write_labels, write_volume
from tomotif.io.run_folder import as_output_error
from tomotif.io.star import read_particles, write_particles
from tomotif.io.structure import load_structure, structure_names
from tomotif.io.tilt_series import write_tilt_series
from tomotif.tasks.simulate import SimulatedTomogram, TomogramSettings, simulate_tomogram
from tomotif.tasks.simulate.specimen import DISTRACTOR, check_size, distractor_numbers, numbers_of
from tomotif.tasks.simulate.templates import check_names

Kept = Literal["labels", "noise_free", "density", "tilt_series"]
USUALLY_KEPT: tuple[Kept, ...] = ("labels", "noise_free", "tilt_series")

PRESETS = files("tomotif.resources") / "presets"
"""Folder of the specs that come with tomotif."""

PARTS = "parts"
"""Folder in a run of what is known of each finished tomogram, until all are."""

_NUMBERS = {
    name for name, field in TomogramSettings.model_fields.items() if field.annotation in (int, float, float | None)
}
"""Settings that are plain numbers."""

# measured on two cores of a server of 2023; a ray is a voxel at one tilt
_SECONDS, _SECONDS_PER_RAY, _SECONDS_PER_PARTICLE = 0.3, 20e-9, 2e-3
_SECONDS_PER_SIGNAL = 0.8  # of a structure in a box of 32 voxels, on which its SNR stands
_GB, _GB_PER_VOXEL = 0.35, 48e-9


class TomogramSpec(TomogramSettings):
    """What is to be simulated: the settings of a tomogram, what it is of, and what each tomogram draws for itself."""

    structures: tuple[str, ...] = Field(min_length=1)
    """Names of structures, or files; each is a class."""

    vary: dict[str, tuple[float, float]] = Field(default={})
    """Ranges of settings that are numbers: each tomogram draws its own value, snr with uniform logarithm."""

    @model_validator(mode="after")
    def _can_vary(self) -> TomogramSpec:
        problems = [problem for name in self.vary for problem in self._problems_of(name)]
        if problems:
            raise ValueError("; ".join(problems))
        return self

    def _problems_of(self, name: str) -> Iterator[str]:
        """What is wrong with a range to draw from."""
        low, high = self.vary[name]
        if name not in _NUMBERS:
            yield f"expected a setting that is a number to vary, got {name!r}; known: {', '.join(sorted(_NUMBERS))}"
        elif low > high:
            yield f"expected a range low <= high to vary {name} in, got {low:g} to {high:g}"
        else:
            for end in dict.fromkeys((low, high)):
                try:
                    self.settings({name: end})
                except ValidationError as error:
                    yield f"vary {name}: {error.errors()[0]['msg'].removeprefix('Value error, ')}, got {end:g}"

    def settings(self, drawn: Mapping[str, float] | None = None) -> TomogramSettings:
        """The settings of a tomogram that drew these values."""
        own = self.model_dump(exclude={"structures", "vary"})
        return TomogramSettings.model_validate(own | dict(drawn or {}))

    def draw(self, rng: np.random.Generator) -> dict[str, float]:
        """Values for one tomogram."""
        return {name: _drawn(name, *self.vary[name], rng) for name in sorted(self.vary)}

    def middle(self) -> TomogramSettings:
        """Settings of a typical tomogram."""
        means = {name: _middle(name, low, high) for name, (low, high) in self.vary.items()}
        return self.settings(means)


def _drawn(name: str, low: float, high: float, rng: np.random.Generator) -> float:
    """A random value of a setting."""
    if TomogramSettings.model_fields[name].annotation is int:
        return int(rng.integers(int(low), int(high), endpoint=True))
    if name == "snr":
        return float(np.exp(rng.uniform(math.log(low), math.log(high))))
    return float(rng.uniform(low, high))


def _middle(name: str, low: float, high: float) -> float:
    if TomogramSettings.model_fields[name].annotation is int:
        return round((low + high) / 2)
    return math.sqrt(low * high) if name == "snr" else (low + high) / 2


# ------------------------------------------------------------------------------------------------------------- specs


def preset_names() -> list[str]:
    """Names of the specs that come with tomotif.

    >>> preset_names()
    ['crowded', 'mycoplasma', 'randomised', 'simple']
    """
    return sorted(e.name.removesuffix(".yaml") for e in PRESETS.iterdir() if e.name.endswith(".yaml"))


def read_spec(names: Sequence[str], changes: Mapping[str, Any] | None = None) -> TomogramSpec:
    """The spec of a YAML file or a preset, or one of the usual settings for names of structures.

    Parameters
    ----------
    names
        One YAML file or preset, or structures.
    changes
        Settings that win over the spec's, and over what it varies.

    Raises
    ------
    InputError
        When the file is missing or no YAML, or a spec stands among several names.
    ValidationError
        When settings are unknown or out of range: all of them together.
    """
    content = spec_content(names)
    changes = dict(changes or {})
    vary = content.get("vary")
    if isinstance(vary, dict):
        content = content | {"vary": {key: ends for key, ends in vary.items() if key not in changes}}
    return TomogramSpec.model_validate(content | changes)


def spec_content(names: Sequence[str]) -> dict[str, Any]:
    """What a spec says, not yet checked."""
    specs = [name for name in names if is_spec(name)]
    if specs and len(names) > 1:
        raise InputError(f"expected one spec, or names of structures, got {specs[0]!r} among {len(names)} names")
    if not specs:
        return {"structures": list(names)}
    if names[0] in preset_names():
        return parsed((PRESETS / f"{names[0]}.yaml").read_text("utf-8"), names[0])
    path = existing_file(Path(names[0]), "a YAML file or one of the presets " + ", ".join(preset_names()))
    return parsed(path.read_text(encoding="utf-8"), names[0])


def is_spec(name: str) -> bool:
    """Whether a name is that of a preset or a YAML file, and not of a structure."""
    return name in preset_names() or Path(name).suffix.lower() in (".yaml", ".yml")


def parsed(text: str, source: str) -> dict[str, Any]:
    """A YAML document that maps settings to values."""
    try:
        content = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise InputError(f"expected YAML in {source}, got {' '.join(str(error).split())}") from None
    if not isinstance(content, dict):
        raise InputError(f"expected settings in {source}, such as 'structures: [4v5d]', got {content!r:.60}")
    return content


def check_spec(spec: TomogramSpec) -> None:
    """See before anything is made that structures are there, fit the voxels and have numbers.

    Raises
    ------
    InputError
        Also for the coarsest voxels of a spec that varies them.
    """
    structures = [load_known(name) for name in spec.structures]
    others = [load_structure(name) for name in spec.other_structures]
    check_names(structures)
    coarsest = spec.vary.get("voxel_size", (0.0, spec.voxel_size))[1]
    check_size([*structures, *others], spec.settings({"voxel_size": coarsest}))
    numbers_of(structures, spec, 1)


def load_known(name: str) -> Structure:
    """A structure; an unknown name might have been meant for a preset."""
    try:
        return load_structure(name)
    except UnknownNameError:
        raise UnknownNameError("structure or preset", name, [*structure_names(), *preset_names()]) from None


def structure_files(spec: TomogramSpec) -> list[Path]:
    """Files among the structures of a spec."""
    names = dict.fromkeys([*spec.structures, *spec.other_structures])
    return [Path(name) for name in names if name.lower() not in structure_names()]


# ---------------------------------------------------------------------------------------------------------- estimates


@dataclass(frozen=True)
class Estimate:
    """What a simulation will about be and need.

    Parameters
    ----------
    voxels
        Of a tomogram.
    particles
        Expected in a tomogram, by class; without those at membranes.
    seconds
        For all tomograms, one after the other.
    memory_gb
        At one time.
    disk_gb
        For all tomograms.
    """

    voxels: int
    particles: dict[str, int]
    seconds: float
    memory_gb: float
    disk_gb: float


def estimate(
    spec: TomogramSpec, *, count: int = 1, processes: int = 1, keep: Sequence[Kept] = USUALLY_KEPT
) -> Estimate:
    """About how many particles, how much time, memory and disk a simulation takes; of what varies, the middle."""
    settings = spec.middle()
    voxels = math.prod(settings.shape)
    particles = expected_particles(spec, settings)
    return Estimate(
        voxels,
        particles,
        seconds=count * seconds_for(settings, sum(particles.values())) + seconds_for_signals(spec, count),
        memory_gb=(_GB + _GB_PER_VOXEL * voxels) * min(processes, count),
        disk_gb=count * bytes_of(settings, keep) / 1e9,
    )


def seconds_for(settings: TomogramSettings, particles: int) -> float:
    """About how long a tomogram of so many particles takes."""
    rays = math.prod(settings.shape) * len(settings.angles)
    return _SECONDS + _SECONDS_PER_RAY * rays + _SECONDS_PER_PARTICLE * particles


def seconds_for_signals(spec: TomogramSpec, count: int) -> float:
    """About how long it takes to find how far every structure stands out from the noise.

    What was found is kept for the next tomogram of the same optics and about the same defocus.
    """
    if spec.snr is None and "snr" not in spec.vary:
        return 0.0
    conditions = count if spec.vary else min(count, 4)
    structures = len(spec.structures + spec.other_structures)
    return conditions * structures * _SECONDS_PER_SIGNAL * (spec.box_px / 32) ** 3


def bytes_of(settings: TomogramSettings, keep: Sequence[Kept]) -> int:
    """Bytes of the files of a tomogram, tables apart."""
    nz, ny, nx = settings.shape
    across, along = (nx, ny) if settings.tilt_axis == "y" else (ny, nx)
    voxels, pixels = nz * ny * nx, len(settings.angles) * along * math.ceil(math.hypot(across, nz))
    each = {"labels": 3 * voxels, "noise_free": 4 * voxels, "density": 4 * voxels, "tilt_series": 2 * pixels}
    return 4 * voxels + sum(each[what] for what in set(keep))


def expected_particles(spec: TomogramSpec, settings: TomogramSettings) -> dict[str, int]:
    """How many of each class a tomogram is to hold, when scenery takes no room."""
    structures = [load_known(name) for name in spec.structures]
    others = [load_structure(name) for name in settings.distractors]
    nz, ny, nx = settings.shape
    room = round(min(settings.thickness / settings.voxel_size, nz) * ny * nx)
    numbers = zip((s.name for s in structures), map(int, numbers_of(structures, settings, room)), strict=True)
    distractors = int(distractor_numbers(others, settings, room).sum())
    return dict(numbers) | ({DISTRACTOR: distractors} if distractors else {})


# ------------------------------------------------------------------------------------------------------------- making


@dataclass(frozen=True)
class Batch:
    """The tomograms of a run.

    Parameters
    ----------
    spec
        What they are of.
    folder
        Where they go.
    seed
        Tomogram i has the generator of (seed, i), whoever makes it and whenever.
    keep
        What is written beside tomograms and particles.
    """

    spec: TomogramSpec
    folder: Path
    seed: int
    keep: tuple[Kept, ...]

    def name(self, number: int) -> str:
        """Name of a tomogram."""
        return f"simulated_{number:03d}"

    def part(self, number: int, suffix: str) -> Path:
        """A file of what is known of a finished tomogram."""
        return self.folder / PARTS / f"{self.name(number)}{suffix}"

    def is_finished(self, number: int) -> bool:
        """Whether a tomogram and all that belongs to it is written."""
        return self.part(number, ".json").exists()

    def make(self, number: int) -> None:
        """Simulate and write a tomogram; its facts come last, and say that it is whole."""
        begun = time.perf_counter()
        rng = np.random.default_rng((self.seed, number))
        drawn = self.spec.draw(rng)
        made = self.simulate(number, drawn, rng)
        self.write(made)
        tomogram = self.open(number, drawn)
        self.part(number, ".star").parent.mkdir(exist_ok=True)
        write_particles(self.part(number, ".star"), made.particles, tomograms=[tomogram])
        facts = {
            "name": self.name(number),
            "seed": [self.seed, number],
            "drawn": drawn,
            "defocus_um": made.defocus_um,
            "occupancy": made.occupancy,
            "particles": len(made.particles),
            "seconds": round(time.perf_counter() - begun, 3),
        }
        write_json(self.part(number, ".json"), facts)

    def simulate(self, number: int, drawn: Mapping[str, float], rng: np.random.Generator) -> SimulatedTomogram:
        """One tomogram; an error says in which it was."""
        structures = [load_structure(name) for name in self.spec.structures]
        settings, name = self.spec.settings(drawn), self.name(number)
        try:
            return simulate_tomogram(structures, settings, rng, name, noise_free="noise_free" in self.keep)
        except TomotifError as error:
            values = ", ".join(f"{key} {value:.3g}" for key, value in drawn.items())
            # a plain one, which can be handed from process to process
            raise InputError(f"{name}{f' ({values})' if values else ''}: {error}") from error

    def write(self, made: SimulatedTomogram) -> None:
        """Write a tomogram and what is kept of the truth."""
        volume, name = made.tomogram.volume, made.tomogram.name
        write_volume(self.folder / f"{name}.mrc", volume.data, volume.voxel_size)
        if "labels" in self.keep:
            write_labels(self.folder / f"{name}_classes.mrc", made.classes)
            write_labels(self.folder / f"{name}_instances.mrc", made.instances)
        if "tilt_series" in self.keep:
            write_tilt_series(self.folder / f"{name}_tilts.mrcs", made.tilt_series)
        if "density" in self.keep:
            write_volume(self.folder / f"{name}_density.mrc", made.density, volume.voxel_size)
        if made.noise_free is not None:
            write_volume(self.folder / f"{name}_noise_free.mrc", made.noise_free, volume.voxel_size)

    def open(self, number: int, drawn: Mapping[str, float]) -> Tomogram:
        """A written tomogram."""
        settings = self.spec.settings(drawn)
        return open_tomogram(
            self.folder / f"{self.name(number)}.mrc",
            missing_wedge=settings.missing_wedge,
            contrast=settings.contrast,
            check=False,
        )

    def gather(self, count: int) -> tuple[list[dict[str, Any]], list[Tomogram], Particles]:
        """Facts, tomograms and particles of all, as they are on disk: the same whether a run was killed or not."""
        facts = [read_json(self.part(number, ".json")) for number in range(count)]
        tomograms = [self.open(number, entry["drawn"]) for number, entry in enumerate(facts)]
        tables = [
            read_particles(self.part(number, ".star"), tomograms=[tomogram])
            for number, tomogram in enumerate(tomograms)
        ]
        return facts, tomograms, Particles.concat(tables)


def make_all(batch: Batch, count: int, processes: int, progress: Progress) -> None:
    """Make the tomograms that are not there yet.

    Raises
    ------
    InputError
        When one cannot be made, or a process was killed; finished tomograms stay.
    """
    todo = [number for number in range(count) if not batch.is_finished(number)]
    finished = count - len(todo)
    progress(finished, count)
    for _ in in_processes(batch, todo, processes) if min(processes, len(todo)) > 1 else map(batch.make, todo):
        finished += 1
        progress(finished, count)


def in_processes(batch: Batch, numbers: Sequence[int], processes: int) -> Iterator[None]:
    """Make tomograms in parallel; yields after each."""
    processes = min(processes, len(numbers))
    context = get_context("spawn")
    places: SimpleQueue[int] = context.SimpleQueue()
    for place in range(processes):
        places.put(place)
    pool = ProcessPoolExecutor(processes, context, take_processors, (places, processes))
    try:
        futures = [pool.submit(batch.make, number) for number in numbers]
        for future in as_completed(futures):
            yield future.result()
    except BrokenProcessPool:
        raise InputError(
            f"expected {processes} processes to live, but one was killed, as happens for lack of memory; run the "
            "same command with fewer --processes, what is finished is kept"
        ) from None
    finally:
        pool.shutdown(cancel_futures=True)


def take_processors(places: SimpleQueue[int], processes: int) -> None:
    """Give a new process its share of the processors, so that they do not crowd each other."""
    import torch

    each, place = max(1, cpu_count() // processes), places.get()
    torch.set_num_threads(each)
    if hasattr(os, "sched_setaffinity"):
        allowed = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, [allowed[(place * each + i) % len(allowed)] for i in range(each)])


@contextmanager
def keeping_finished(output: Path) -> Iterator[None]:
    """Make the output folder; after an error it goes again, unless finished tomograms lie in it."""
    made = not output.exists()
    with as_output_error(output):
        output.mkdir(parents=True, exist_ok=True)
    try:
        yield
    except TomotifError:
        if made and not any((output / PARTS).glob("*.json")):
            shutil.rmtree(output, ignore_errors=True)
        raise
