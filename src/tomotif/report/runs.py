"""Run folders as the report sees them: what ``run.json`` says and where the other files lie."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any

from tomotif.core import InputError, Particles
from tomotif.io.files import read_json
from tomotif.io.star import read_particles

RECORD, PARTICLES, TOMOGRAMS = "run.json", "particles.star", "tomograms.star"


@dataclass(frozen=True, eq=False)
class Run:
    """One run folder.

    Parameters
    ----------
    folder
        Where it is.
    record
        The content of its ``run.json``.
    name
        Its path below the folder that was asked for, with that folder's name.
    """

    folder: Path
    record: dict[str, Any] = field(repr=False)
    name: str

    @property
    def command(self) -> str:
        """First word of the command, such as ``"train"`` for "train classifier"."""
        return (str(self.record.get("command", "")).split() or ["unknown"])[0]

    @property
    def finished(self) -> bool:
        """Whether the run ended."""
        return self.record.get("status", "finished") == "finished"

    @property
    def wall_s(self) -> float | None:
        """Wall time in s, None when not recorded."""
        value = self.record.get("wall_s")
        return float(value) if isinstance(value, int | float) else None

    @property
    def started(self) -> datetime | None:
        """When it began, None when not recorded."""
        try:
            return datetime.fromisoformat(str(self.record.get("started")))
        except ValueError:
            return None

    @property
    def results(self) -> dict[str, Any]:
        """What the run recorded as found."""
        return mapping(self.record.get("results"))

    @property
    def settings(self) -> dict[str, Any]:
        """The resolved settings."""
        return mapping(self.record.get("settings"))

    @property
    def inputs(self) -> list[dict[str, Any]]:
        """Files and folders read: path, bytes, blake2."""
        listed = self.record.get("inputs")
        return [mapping(item) for item in listed] if isinstance(listed, list) else []

    @cached_property
    def particles(self) -> Particles:
        """The particle table.

        Raises
        ------
        InputError
            When it is missing or damaged.
        """
        if not (self / PARTICLES).is_file():
            raise InputError(f"no {PARTICLES} in {self.name}: the run has not ended, or the file was moved away")
        return read_particles(self / PARTICLES)

    def __truediv__(self, name: str) -> Path:
        return self.folder / name


def mapping(value: Any) -> dict[str, Any]:
    """``value`` when it is a mapping, else an empty one: a damaged record must not stop the page."""
    return value if isinstance(value, dict) else {}


def read_run(folder: Path, name: str) -> Run:
    """Read one run folder.

    Raises
    ------
    InputError
        When its ``run.json`` is no JSON object.
    """
    record = read_json(folder / RECORD)
    if not isinstance(record, dict):
        raise InputError(f"expected a JSON object in {folder / RECORD}, got a {type(record).__name__}; run it again")
    return Run(folder, record, name)


def read_runs(folders: Sequence[Path]) -> list[Run]:
    """Read run folders and the ones inside them, each once, in order of time.

    Raises
    ------
    InputError
        When a folder is missing, or neither it nor any folder in it holds a ``run.json``.
    """
    found: dict[Path, Run] = {}
    for folder in folders:
        for run in runs_below(folder):
            found.setdefault(run.folder.resolve(), run)
    return sorted(found.values(), key=lambda run: run.started.timestamp() if run.started else 0.0)


def runs_below(folder: Path) -> Iterator[Run]:
    """The run of a folder and those of its sub-folders."""
    if not folder.is_dir():
        raise InputError(f"expected a run folder at {folder}, found {'a file' if folder.exists() else 'nothing'}")
    records = sorted(folder.rglob(RECORD))
    if not records:
        raise InputError(
            f"expected a run folder with a {RECORD} at {folder}, found none; give a folder that a command wrote"
        )
    root = folder.resolve()
    for record in records:
        below = record.parent.resolve().relative_to(root)
        yield read_run(record.parent, "/".join((root.name, *below.parts)))


def input_folder(run: Run, holding: str) -> Path | None:
    """The folder among a run's inputs (or the folder of an input file) that holds a file of this name.

    Runs record their inputs as they were given; a run folder that was moved keeps its neighbours beside it.

    Parameters
    ----------
    run
        The run.
    holding
        Name of the file looked for, such as ``"subtomograms.mrcs"``.
    """
    for item in run.inputs:
        for place in places(run, Path(str(item.get("path", "")))):
            if (place / holding).is_file():
                return place
    return run.folder if (run / holding).is_file() else None


def places(run: Run, path: Path) -> Iterator[Path]:
    """Folders that a recorded input may be or lie in: as it was given, or near a run folder that was moved."""
    yield from (path, path.parent)
    for near in (run.folder.parent, run.folder.parent.parent):
        yield from (near / path.name, near / path.parent.name)


def source_of(run: Run) -> Run | None:
    """The run whose particle table a run started from, None when no run's table is among its inputs."""
    for item in run.inputs:
        path = Path(str(item.get("path", "")))
        if path.name != PARTICLES and path.suffix:
            continue
        for place in places(run, path):
            whole = (place / PARTICLES).is_file() and (place / RECORD).is_file()
            if whole and place.resolve() != run.folder.resolve():
                return read_run(place, place.name)
    return None


def origins(run: Run) -> list[Run]:
    """The run and those that its table was made from, the newest first."""
    chain, folders = [run], {run.folder.resolve()}
    while (source := source_of(chain[-1])) is not None and source.folder.resolve() not in folders:
        chain.append(source)
        folders.add(source.folder.resolve())
    return chain


def wrote_simulation(path: Path | None) -> bool:
    """Whether a file lies in the run folder of a simulation."""
    if path is None or not (path.parent / RECORD).is_file():
        return False
    return mapping(read_json(path.parent / RECORD)).get("command") == "simulate"
