"""`tomotif doctor`: versions and hardware, and a verdict on each file."""

from __future__ import annotations

from pathlib import Path

import psutil
from rich.text import Text

from tomotif.cli.console import console
from tomotif.io.environment import cpu_count, cpu_name, versions
from tomotif.io.inspect import Inspection, inspect

CPU_FEATURES = {"avx2": "AVX2", "avx512f": "AVX-512", "avx512_vnni": "VNNI", "avx512_bf16": "BF16", "amx_tile": "AMX"}


def doctor(files: tuple[Path, ...] = ()) -> None:
    """Print versions and hardware, and a verdict on each file; exit with 1 when a file cannot be used.

    Parameters
    ----------
    files
        MRC volumes, MRC stacks and star files to look at.
    """
    for name, value in environment().items():
        show(name, value)
    inspected = [inspect(file) for file in files]
    for inspection in inspected:
        report(inspection)
    if not all(inspection.is_good for inspection in inspected):
        raise SystemExit(1)


def environment() -> dict[str, str]:
    """What computations would run on, in words."""
    import torch  # takes a second; only this command needs it here

    memory = psutil.virtual_memory()
    features = cpu_features()
    return {
        "versions": ", ".join(f"{package} {number}" for package, number in versions().items()),
        "cpu": cpu_name(),
        "cpu features": ", ".join(f"{label}: {'yes' if there else 'no'}" for label, there in features.items()),
        "gpu": ", ".join(gpu_names()) or "none",
        "threads": f"{torch.get_num_threads()} in torch, {cpu_count()} processors to use",
        "memory": f"{memory.total / 1e9:.1f} GB, {memory.available / 1e9:.1f} GB free",
    }


def cpu_features() -> dict[str, bool]:
    """The instructions that fast inference uses, and whether the processor has them."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    flags = next((line.split(":", 1)[1].split() for line in lines if line.startswith("flags")), [])
    return {label: flag in flags for flag, label in CPU_FEATURES.items()}


def gpu_names() -> list[str]:
    """Names of the graphics processors that torch can use."""
    import torch

    if torch.cuda.is_available():
        return [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return ["Apple (MPS)"] if torch.backends.mps.is_available() else []


def report(inspection: Inspection) -> None:
    """Print the verdict on one file and what was found in it."""
    verdict = ("good", "bold green") if inspection.is_good else ("bad", "bold red")
    console.print()
    console.print(Text.assemble((f"{inspection.path}: ", "bold"), verdict, f", {inspection.kind}"))
    for problem in inspection.problems:
        show("  problem", problem)
    for name, value in inspection.facts.items():
        show(f"  {name}", value)


def show(name: str, value: str) -> None:
    """Print a named value on one line."""
    console.print(Text(f"{name:<17}{value}"))
