"""Files that are either whole or not there: write beside, then rename; allocate before filling."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tomotif.core import InputError, OutputError

# what the place of writing can do to us; any other OSError in the block is about something else and passes
_PLACE = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
    errno.EFBIG: "the file would exceed the allowed file size",
    errno.EROFS: "the disk is read-only",
    errno.EACCES: "no permission to write there",
    errno.EPERM: "no permission to write there",
    errno.EIO: "the disk reports an error",
}


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Write a file in one step: fill the temporary path, and it becomes ``path`` when the block ends well.

    Parameters
    ----------
    path
        The file to appear. Its folder must exist.

    Yields
    ------
    Path
        A hidden path in the same folder with the same suffix, deleted when the block fails.

    Raises
    ------
    OutputError
        When the folder is missing or not writable, or the disk is full.
    """
    path = Path(path)
    if not path.parent.is_dir():
        raise OutputError(f"expected a folder to write {path.name} into, but {path.parent} is not one; create it first")
    if path.is_dir():
        raise OutputError(f"expected a file name to write, but {path} is a folder; give another name")
    temporary = path.with_name(f".{path.stem}.part{path.suffix}")
    try:
        yield temporary
        temporary.replace(path)
    except OSError as error:
        if error.errno in _PLACE:
            raise OutputError(f"cannot write {path}: {_PLACE[error.errno]}; give another place or make room") from error
        raise
    finally:
        temporary.unlink(missing_ok=True)


def allocate(path: Path, size: int) -> None:
    """Create a file of ``size`` bytes whose blocks are reserved, so that filling it cannot run out of disk.

    A memory-mapped file that grows into a full disk kills the process (SIGBUS); one that was allocated does not.

    Raises
    ------
    OutputError
        When the disk has no room for it, with the bytes needed and free.
    """
    try:
        with Path(path).open("wb") as file:
            reserve = getattr(os, "posix_fallocate", None)
            if reserve is None:  # macOS
                file.truncate(size)
            elif size > 0:
                reserve(file.fileno(), 0, size)
    except OSError as error:
        Path(path).unlink(missing_ok=True)
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            free = shutil.disk_usage(Path(path).parent).free
            raise OutputError(
                f"cannot write {_shown(path)}: {_PLACE[error.errno]}: {size:,} bytes needed, {free:,} free in "
                f"{Path(path).resolve().parent}; make room or give another place"
            ) from error
        if error.errno in _PLACE:
            raise OutputError(f"cannot write {_shown(path)}: {_PLACE[error.errno]}; give another place") from error
        raise


def write_json(path: Path, obj: Any) -> None:
    """Write an object as indented JSON, whole or not at all; NaN is refused."""
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(obj, indent=2, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises
    ------
    InputError
        When the file is missing or not JSON.
    """
    existing_file(path, "a JSON file")
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"expected JSON in {path}, got something else ({error}); the file is damaged") from error


def existing_file(path: Path, what: str) -> Path:
    """The path again, once it is known to be a file; ``what`` names what was expected in the message.

    Raises
    ------
    InputError
        When there is nothing, or a folder, at the path.
    """
    path = Path(path)
    if path.is_dir():
        raise InputError(f"expected {what}, but {path} is a folder; give a file in it")
    if not path.exists():
        raise InputError(f"expected {what}, but {path} does not exist; check the path")
    return path


def _shown(path: Path) -> str:
    """The name a user knows: that of the file a temporary one is going to replace."""
    name = Path(path).name
    return name[1:].replace(".part", "", 1) if name.startswith(".") and ".part" in name else name
