"""Where work runs. Tasks hand over a function and small arguments (paths and ranges, never volumes).

The only engine here is a local thread pool; another one (a cluster) is another branch of :func:`executor`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from typing import TypeVar

from tomotif.core import Progress

Item = TypeVar("Item")


@contextmanager
def executor(workers: int = 1) -> Iterator[Executor]:
    """Open an executor of this machine's threads; what has not begun is cancelled when the block fails."""
    pool = ThreadPoolExecutor(max_workers=workers)
    try:
        yield pool
    except BaseException:
        pool.shutdown(wait=True, cancel_futures=True)
        raise
    pool.shutdown()


def run_all(
    function: Callable[[Item], None], items: Sequence[Item], *, workers: int = 1, progress: Progress | None = None
) -> None:
    """Call ``function`` on every item, in any order; the first error stops the rest and is raised.

    Parameters
    ----------
    function
        Leaves its result on disk.
    items
        Small arguments.
    workers
        How many run at once.
    progress
        Called with (done, all) after each item.
    """
    with executor(workers) as pool:
        futures = [pool.submit(function, item) for item in items]
        for done, future in enumerate(as_completed(futures), start=1):
            future.result()
            if progress is not None:
                progress(done, len(items))
