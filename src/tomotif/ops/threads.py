"""Work on parts side by side, each on one thread: small tensors gain nothing from being split themselves."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

Given = TypeVar("Given")
Made = TypeVar("Made")


@contextmanager
def one_thread_each() -> Iterator[None]:
    """Keep torch from splitting its operations, while parts are what runs in parallel."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def side_by_side(work: Callable[[Given], Made], parts: Sequence[Given], workers: int) -> Iterable[Made]:
    """The results of the parts in their order, as they come."""
    with one_thread_each(), ThreadPoolExecutor(workers) as pool:
        yield from pool.map(work, parts)
