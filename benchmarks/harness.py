"""What every benchmark shares: the command line, the record of where it ran, cells, and the result file."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from tomotif.io.environment import cpu_count, cpu_name, versions
from tomotif.io.files import read_json, write_json

RESULTS = Path(__file__).parent / "results"
RECORD = ("versions", "cpu", "gpu", "wall_s")
"""What a cell says about where it ran."""

_cell_seconds: list[float] = []
"""Wall time of every cell that this process computed or read."""


def run(name: str, main: Callable[[bool], dict[str, Any]], *, seeds: tuple[int, ...] = (0,)) -> None:
    """Run one benchmark from the command line.

    Parameters
    ----------
    name
        Name of the benchmark and of its result file.
    main
        Takes whether the run is quick, gives the numbers as plain JSON values.
    seeds
        The seeds `main` uses, for the record.
    """
    parser = argparse.ArgumentParser(prog=f"python -m benchmarks.{name}", description=sys.modules["__main__"].__doc__)
    parser.add_argument("--quick", action="store_true", help="a smaller run, for checking")
    quick = parser.parse_args().quick
    begun = time.perf_counter()
    numbers = main(quick)
    result = {
        **numbers,
        "quick": quick,
        "command": f"python -m benchmarks.{name}" + (" --quick" if quick else ""),
        "date": datetime.now(UTC).date().isoformat(),
        "versions": versions(),
        "cpu": cpu_name(),
        "threads": cpu_count(),
        "seeds": list(seeds),
        "wall_s": round(time.perf_counter() - begun, 1),
        **({"cells_wall_s": round(sum(_cell_seconds), 1)} if _cell_seconds else {}),
    }
    RESULTS.mkdir(exist_ok=True)
    write_json(RESULTS / f"{name}.json", result)
    print(json.dumps(result))


def cell(name: str, key: str, compute: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Compute one cell of a long study, or read it when an earlier run finished it.

    Parameters
    ----------
    name
        Name of the benchmark.
    key
        Name of the cell; it says everything that decides its result.
    compute
        Gives the cell's numbers; a cell takes at most 45 minutes.
    """
    path = RESULTS / f"{name}.d" / f"{key}.json"
    if path.exists():
        numbers: dict[str, Any] = read_json(path)
    else:
        begun = time.perf_counter()
        numbers = compute()
        numbers |= {"wall_s": round(time.perf_counter() - begun, 1), "versions": versions(), "cpu": cpu_name()}
        if torch.cuda.is_available():
            numbers["gpu"] = torch.cuda.get_device_name()
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, numbers)
    _cell_seconds.append(numbers["wall_s"])
    return numbers


def measured(cell: dict[str, Any]) -> dict[str, Any]:
    """What a cell measured, without where it ran.

    >>> measured({"a": 1, "cpu": "EPYC", "wall_s": 2.0})
    {'a': 1}
    """
    return {name: value for name, value in cell.items() if name not in RECORD}
