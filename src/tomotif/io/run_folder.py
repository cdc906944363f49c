"""Run folders: what every command leaves behind, and how a killed run continues."""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tomotif.core.errors import InputError, OutputError, RunConflictError, TomotifError
from tomotif.core.settings import Settings
from tomotif.io.environment import cpu_count, cpu_name, peak_memory, versions
from tomotif.io.files import read_json, write_json

RECORD = "run.json"
LOG = "run.log"


@dataclass
class RunFolder:
    """One run on disk.

    Attributes
    ----------
    path
        The folder.
    finished
        True when the same run already ended here: there is nothing to do.
    results
        What the run found, shown in ``run.json``.
    """

    path: Path
    finished: bool = False
    results: dict[str, Any] = field(default_factory=dict)

    def __truediv__(self, name: str) -> Path:
        return self.path / name

    def record(self, **results: Any) -> None:
        """Put numbers into ``run.json`` under ``results``; they must be plain JSON values."""
        self.results.update(results)


def input_fingerprint(path: Path) -> dict[str, Any]:
    """Name, size and BLAKE2 hash of a file (of 16 blocks of 1 MB spread over it when it is larger than 16 MB).

    Raises
    ------
    InputError
        When there is no such file or folder.
    """
    if not path.exists():
        raise InputError(f"expected a file at {path}, found none; check the path")
    if path.is_dir():
        record = path / RECORD
        return {"path": str(path), "bytes": 0, "blake2": digest(record) if record.exists() else ""}
    return {"path": str(path), "bytes": path.stat().st_size, "blake2": digest(path)}


def digest(path: Path, block: int = 1 << 20, blocks: int = 16) -> str:
    """BLAKE2 hash of a file's content, sampled when it is large."""
    size = path.stat().st_size
    starts = (
        range(0, size, block) if size <= block * blocks else [i * (size - block) // (blocks - 1) for i in range(blocks)]
    )
    state = hashlib.blake2b(str(size).encode(), digest_size=16)
    with path.open("rb") as file:
        for start in starts:
            file.seek(start)
            state.update(file.read(block))
    return state.hexdigest()


@contextmanager
def run_folder(
    path: Path,
    command: str,
    settings: Settings | Mapping[str, Any],
    *,
    inputs: Sequence[Path] = (),
    seed: int | None = None,
    overwrite: bool = False,
) -> Iterator[RunFolder]:
    """Open a run folder, and write its ``run.json`` when the block ends.

    The same command on a folder that a killed run left continues there; on one that ended, ``finished`` is True. A
    folder made by this call is removed again when the block ends in an error of the input.

    Parameters
    ----------
    path
        The folder; made when missing.
    command
        Name of the command, such as ``"pick"``.
    settings
        The resolved settings.
    inputs
        Files and folders read; their hashes are part of what makes a run the same run.
    seed
        Seed of the random numbers, when there are any.
    overwrite
        Delete an earlier run in this folder first.

    Raises
    ------
    RunConflictError
        When the folder holds another run, or files that are no run of ours.
    OutputError
        When the folder cannot be made or written.
    """
    plain = (
        settings.model_dump(mode="json") if isinstance(settings, Settings) else json.loads(json.dumps(dict(settings)))
    )
    identity = {
        "command": command,
        "settings": plain,
        "seed": seed,
        "inputs": [input_fingerprint(Path(p)) for p in inputs],
    }
    made = not path.exists()
    with as_output_error(path):
        if overwrite and (path / RECORD).exists():
            shutil.rmtree(path)
        finished = earlier_run(path, identity)
        path.mkdir(parents=True, exist_ok=True)
    if finished is not None:
        yield RunFolder(path, finished=True, results=finished)
        return
    run = RunFolder(path)
    begun, started = time.perf_counter(), datetime.now(UTC)
    try:
        with as_output_error(path), logging_to(path / LOG), peak_memory() as peak:
            write_json(path / RECORD, {**identity, "status": "running", "started": started.isoformat()})
            yield run
        write_json(
            path / RECORD,
            {
                **identity,
                "status": "finished",
                "results": run.results,
                "argv": sys.argv,
                "started": started.isoformat(),
                "wall_s": round(time.perf_counter() - begun, 3),
                "peak_memory_mb": round(peak.megabytes, 1),
                "device": {"cpu": cpu_name(), "processors": cpu_count()},
                "versions": versions(),
            },
        )
    except TomotifError:
        if made:
            shutil.rmtree(path, ignore_errors=True)
        raise


@contextmanager
def as_output_error(path: Path) -> Iterator[None]:
    """Turn the system's refusal to write into one clear line."""
    try:
        yield
    except OSError as error:
        if error.errno is None:
            raise
        raise OutputError(
            f"expected to write to {path}, got {error.strerror}; choose another --output or free some space"
        ) from error


def earlier_run(path: Path, identity: Mapping[str, Any]) -> dict[str, Any] | None:
    """Results of the same run when it already ended in this folder, None when there is work to do."""
    if not path.exists() or (path.is_dir() and not any(path.iterdir())):
        return None
    if not (path / RECORD).exists():
        raise RunConflictError(
            f"expected an empty folder or an earlier run at {path}, found other files; choose another --output"
        )
    record = read_json(path / RECORD)
    changed = [key for key, value in identity.items() if record.get(key) != value]
    if changed:
        raise RunConflictError(
            f"{path} holds another run ({describe_change(record, identity, changed[0])}); "
            "use --overwrite to replace it or another --output"
        )
    if record["status"] != "finished":
        return None
    results: dict[str, Any] = record["results"]
    return results


def describe_change(record: Mapping[str, Any], identity: Mapping[str, Any], key: str) -> str:
    """Say what differs between an earlier run and the one asked for."""
    old, new = record.get(key), identity[key]
    if key == "settings" and isinstance(old, dict):
        names = [name for name in {**old, **new} if old.get(name) != new.get(name)]
        return ", ".join(f"{name} was {old.get(name)!r}, is {new.get(name)!r}" for name in names)
    if key == "inputs":
        return "its input files were others or have changed"
    return f"{key} was {old!r}, is {new!r}"


@contextmanager
def logging_to(path: Path) -> Iterator[None]:
    """Write tomotif's log messages to a file while the block runs."""
    logger = logging.getLogger("tomotif")
    handler = logging.FileHandler(path, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.setLevel(level)
        logger.removeHandler(handler)
        handler.close()
