"""The demo's simulated part and real part, timed: macro-F1, picking recall, seconds.

Scored on a simulated tomogram that training has not seen; quick: one tomogram, full: three seeds.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import harness
from tomotif.io.files import read_json
from tomotif.pipelines.demo import DemoSettings, demo
from tomotif.pipelines.stages import Run

SEEDS = (0, 1, 2)


def one(seed: int) -> dict[str, Any]:
    """Run the demo with one seed."""
    with tempfile.TemporaryDirectory() as folder:
        begun = time.perf_counter()
        found = demo(DemoSettings(seed=seed), Run(Path(folder) / "demo"))
        seconds = time.perf_counter() - begun
        score = read_json(Path(folder) / "demo" / "simulated_score" / "score.json")
        stages = {path.parent.name: read_json(path)["wall_s"] for path in sorted(Path(folder).glob("demo/*/run.json"))}
    return {
        "seed": seed,
        "macro_f1": found.macro_f1,
        "macro_f1_interval": score["intervals"]["macro_f1"],
        "pick_recall": found.recall,
        "pick_precision_after_classification": score["detection"]["precision"],
        "random_macro_f1": score["random"]["macro_f1"],
        "real_ribosome_like": found.ribosome_like,
        "seconds": round(seconds, 1),
        "stage_seconds": stages,
    }


def main(quick: bool) -> dict[str, Any]:
    """Run the demo once (quick) or with three seeds."""
    runs = [one(seed) for seed in (SEEDS[:1] if quick else SEEDS)]
    numbers = {key: [run[key] for run in runs] for key in ("macro_f1", "pick_recall", "seconds")}
    return {
        **{key: float(np.mean(values)) for key, values in numbers.items()},
        **{f"{key}_sd": float(np.std(values)) for key, values in numbers.items()},
        "runs": runs,
    }


if __name__ == "__main__":
    harness.run("demo_scores", main, seeds=SEEDS)
