"""Run folders: a run is done once, a killed one goes on, another one is refused, a failed one leaves nothing."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import numpy as np
import pytest

from tomotif.core import InputError, OutputError, RunConflictError
from tomotif.io.environment import peak_memory
from tomotif.io.run_folder import run_folder


def test_a_finished_run_is_not_repeated(tmp_path: Path) -> None:
    with run_folder(tmp_path / "r", "pick", {"a": 1}, seed=3) as run:
        assert not run.finished
        run.record(picks=5)
    record = json.loads((tmp_path / "r" / "run.json").read_text())
    assert record["status"] == "finished" and record["results"] == {"picks": 5} and record["seed"] == 3
    assert record["wall_s"] >= 0 and record["peak_memory_mb"] > 1 and "torch" in record["versions"]
    with run_folder(tmp_path / "r", "pick", {"a": 1}, seed=3) as run:
        assert run.finished and run.results == {"picks": 5}


def test_another_run_in_the_same_folder_is_refused(tmp_path: Path) -> None:
    with run_folder(tmp_path / "r", "pick", {"a": 1}):
        pass
    with (
        pytest.raises(RunConflictError, match=r"a was 1, is 2.*--overwrite"),
        run_folder(tmp_path / "r", "pick", {"a": 2}),
    ):
        pass
    with run_folder(tmp_path / "r", "pick", {"a": 2}, overwrite=True) as run:
        assert not run.finished


def test_a_changed_input_is_another_run(tmp_path: Path) -> None:
    source = tmp_path / "in.mrc"
    source.write_bytes(b"one")
    with run_folder(tmp_path / "r", "pick", {}, inputs=[source]):
        pass
    source.write_bytes(b"two")
    with pytest.raises(RunConflictError, match="input files"), run_folder(tmp_path / "r", "pick", {}, inputs=[source]):
        pass


def test_a_folder_with_other_files_is_never_touched(tmp_path: Path) -> None:
    (tmp_path / "precious.txt").write_text("mine")
    for overwrite in (False, True):
        with (
            pytest.raises(RunConflictError, match="other files"),
            run_folder(tmp_path, "pick", {}, overwrite=overwrite),
        ):
            pass
    assert (tmp_path / "precious.txt").read_text() == "mine"


def test_a_run_that_fails_on_its_input_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(InputError), run_folder(tmp_path / "r", "pick", {}) as run:
        (run / "half.star").write_text("half")
        raise InputError("bad")
    assert not (tmp_path / "r").exists()


def test_a_killed_run_is_continued(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), run_folder(tmp_path / "r", "pick", {"a": 1}) as run:
        (run / "part.npy").write_text("done")
        raise KeyboardInterrupt
    with run_folder(tmp_path / "r", "pick", {"a": 1}) as run:
        assert not run.finished
        assert (run / "part.npy").read_text() == "done"


def test_a_full_disk_is_one_clear_error_and_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="No space left"), run_folder(tmp_path / "r", "pick", {}):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert not (tmp_path / "r").exists()


def test_a_file_in_place_of_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "r").write_text("a file")
    with pytest.raises((OutputError, RunConflictError)), run_folder(tmp_path / "r", "pick", {}):
        pass
    with pytest.raises(OutputError), run_folder(tmp_path / "r" / "below", "pick", {}):
        pass


def test_peak_memory_sees_private_memory_and_not_mapped_files(tmp_path: Path) -> None:
    mapped = np.lib.format.open_memmap(tmp_path / "big.npy", mode="w+", dtype=np.uint8, shape=(100_000_000,))
    with peak_memory(0.01) as before:
        pass
    with peak_memory(0.01) as reading:
        int(mapped.sum())
    with peak_memory(0.01) as holding:
        held = np.ones(100_000_000, np.uint8)
        held += 1
    assert reading.megabytes - before.megabytes < 30
    assert holding.megabytes - before.megabytes > 90
