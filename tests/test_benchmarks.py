"""What benchmarks share: a finished cell is not computed again, and the page shows every number of a result file."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import harness, page


def test_a_finished_cell_is_not_computed_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(harness, "RESULTS", tmp_path)
    calls = []

    def compute() -> dict[str, float]:
        calls.append(1)
        return {"accuracy": 0.5}

    first = harness.cell("study", "snr0.1_seed0", compute)
    again = harness.cell("study", "snr0.1_seed0", compute)
    assert first == again and first["accuracy"] == 0.5 and first["wall_s"] >= 0
    assert len(calls) == 1
    assert (tmp_path / "study.d" / "snr0.1_seed0.json").exists()


def test_a_cell_that_fails_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(harness, "RESULTS", tmp_path)
    with pytest.raises(ZeroDivisionError):
        harness.cell("study", "broken", lambda: {"ratio": 1 / 0})
    assert not list(tmp_path.rglob("*.json"))


def test_the_page_shows_command_machine_and_numbers() -> None:
    result = {
        "recall": 0.91789,
        "cells": [{"snr": 0.1, "f1": 0.5}],
        "quick": True,
        "command": "python -m benchmarks.pick --quick",
        "date": "2026-01-01",
        "versions": {"tomotif": "0.1", "torch": "2", "openvino": "3"},
        "cpu": "a processor",
        "threads": 2,
        "seeds": [0, 1],
        "wall_s": 12.3,
    }
    text = page.section("pick", result)
    for part in ("python -m benchmarks.pick --quick", "quick run", "2 × a processor", "seeds 0, 1"):
        assert part in text
    assert "| recall | 0.9179 |" in text and "| cells[0].f1 | 0.5 |" in text
    assert "| versions" not in text
