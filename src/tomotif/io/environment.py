"""What a run ran on: versions, processor, threads, and the memory it took."""

from __future__ import annotations

import os
import platform
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import psutil

PACKAGES = (
    "tomotif",
    "numpy",
    "scipy",
    "torch",
    "openvino",
    "lightning",
    "scikit-learn",
    "mrcfile",
    "starfile",
    "gemmi",
)


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that decide results, ``"missing"`` where one is not installed."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "missing"
    return found


def cpu_name() -> str:
    """Model name of the processor."""
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def cpu_count() -> int:
    """Processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def private_memory_bytes(process: psutil.Process) -> int:
    """Anonymous and shared memory of one process; pages of mapped files are the kernel's cache and do not count."""
    status = Path(f"/proc/{process.pid}/status")
    try:
        if not status.exists():
            return int(process.memory_info().rss)
        fields = dict(line.split(":", 1) for line in status.read_text().splitlines() if ":" in line)
        return sum(int(fields[key].split()[0]) * 1024 for key in ("RssAnon", "RssShmem") if key in fields)
    except (psutil.NoSuchProcess, ProcessLookupError, FileNotFoundError):
        return 0


def tree_memory_bytes() -> int:
    """Memory of this process and its children (RssAnon + RssShmem), in bytes."""
    root = psutil.Process()
    return sum(private_memory_bytes(p) for p in [root, *root.children(recursive=True)])


@dataclass
class PeakMemory:
    """The largest memory sampled so far, in bytes."""

    bytes: int = 0

    @property
    def megabytes(self) -> float:
        """The same in MB of 10⁶ bytes."""
        return self.bytes / 1e6


@contextmanager
def peak_memory(interval_s: float = 0.05) -> Iterator[PeakMemory]:
    """Sample the memory of the process tree while the block runs.

    Parameters
    ----------
    interval_s
        Seconds between samples.
    """
    peak = PeakMemory(tree_memory_bytes())
    stop = threading.Event()

    def sample() -> None:
        while not stop.wait(interval_s):
            peak.bytes = max(peak.bytes, tree_memory_bytes())

    sampler = threading.Thread(target=sample, daemon=True)
    sampler.start()
    try:
        yield peak
    finally:
        stop.set()
        sampler.join()
        peak.bytes = max(peak.bytes, tree_memory_bytes())
