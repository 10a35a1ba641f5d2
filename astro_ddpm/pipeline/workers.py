# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
How the tasks of Dask share a process.
"""

import sys
import threading
from contextlib import contextmanager

__all__ = ["process_alone"]

one_at_a_time = threading.Lock()


@contextmanager
def process_alone():
    """
    Wait for the other tasks of this process, then use its processors alone.

    On a Dask worker PyTorch has as many threads meanwhile as the worker has. In any other process their
    number is left as it is.

    Yields
    ------
    nothing : None
        The process belongs to the caller until the end of the ``with`` statement.
    """
    import torch

    with one_at_a_time:
        before = torch.get_num_threads()
        torch.set_num_threads(_worker_threads() or before)
        try:
            yield
        finally:
            torch.set_num_threads(before)


def _worker_threads():
    """Number of threads of the Dask worker that runs this task, None if there is none."""
    if "distributed" not in sys.modules:
        return None
    from distributed import get_worker

    try:
        return get_worker().state.nthreads
    except ValueError:
        return None
