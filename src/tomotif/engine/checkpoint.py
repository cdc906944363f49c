"""Checkpoints without pickle: tensors as safetensors, the rest as JSON in the same file's header."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch.plugins.io import CheckpointIO
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from tomotif.core.errors import InputError
from tomotif.io.files import replacing

SCALARS = (str, int, float, bool, type(None))


def to_tree(value: Any, tensors: dict[str, Tensor]) -> Any:
    """Describe nested Python values as JSON; tensors go into ``tensors`` and leave their key behind.

    Raises
    ------
    TypeError
        For a value that JSON and safetensors cannot hold.

    Examples
    --------
    >>> import torch
    >>> tensors = {}
    >>> tree = to_tree({3: (1.5, torch.ones(2))}, tensors)
    >>> from_tree(json.loads(json.dumps(tree)), tensors)
    {3: (1.5, tensor([1., 1.]))}
    """
    if isinstance(value, Tensor):
        key = f"t{len(tensors)}"
        tensors[key] = value.detach().cpu().clone().contiguous()
        return {"tensor": key}
    if isinstance(value, SCALARS):
        return value
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, Mapping):
        return {"dict": [[to_tree(k, tensors), to_tree(v, tensors)] for k, v in value.items()]}
    if isinstance(value, (list, tuple)):
        return {type(value).__name__: [to_tree(v, tensors) for v in value]}
    raise TypeError(f"expected tensors, numbers, texts and containers of them in a checkpoint, got {type(value)}")


def from_tree(tree: Any, tensors: Mapping[str, Tensor]) -> Any:
    """Inverse of :func:`to_tree`."""
    if not isinstance(tree, dict):
        return tree
    (kind, content), *_ = tree.items()
    if kind == "tensor":
        return tensors[content]
    if kind == "dict":
        return {from_tree(k, tensors): from_tree(v, tensors) for k, v in content}
    items = [from_tree(v, tensors) for v in content]
    return tuple(items) if kind == "tuple" else items


class SafeCheckpointIO(CheckpointIO):
    """What Lightning calls to save and to resume."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any | None = None) -> None:
        """Write a checkpoint; the file appears whole or not at all."""
        tensors: dict[str, Tensor] = {}
        tree = json.dumps(to_tree(checkpoint, tensors))
        target = Path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        with replacing(target) as part:
            save_file(tensors, part, metadata={"tree": tree})

    def load_checkpoint(
        self, path: str | Path, map_location: Any | None = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        """Read a checkpoint."""
        return read_checkpoint(Path(path))

    def remove_checkpoint(self, path: str | Path) -> None:
        """Delete a checkpoint that is no longer wanted."""
        Path(path).unlink(missing_ok=True)


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Read what :class:`SafeCheckpointIO` wrote.

    Raises
    ------
    InputError
        When the file is not such a checkpoint or is damaged.
    """
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - safe_open is no mapping
            tree = json.loads((file.metadata() or {})["tree"])
    except (SafetensorError, KeyError, json.JSONDecodeError, FileNotFoundError) as error:
        raise InputError(
            f"expected a checkpoint at {path}, got a file that cannot be read; train with --overwrite"
        ) from error
    checkpoint: dict[str, Any] = from_tree(tree, tensors)
    return checkpoint
