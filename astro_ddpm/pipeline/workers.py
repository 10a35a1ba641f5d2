# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
What the tasks of Dask need to know of the process that they run in, and of the model.
"""

import os
import sys
import threading
from contextlib import contextmanager
from pathlib import Path

from astro_ddpm import conf, zoo

__all__ = ["is_loaded", "locate_model", "process_alone"]

one_at_a_time = threading.Lock()


def is_loaded(model):
    """Tell whether something is a loaded model rather than a name, a path, or None for the default model."""
    return not (model is None or isinstance(model, (str, os.PathLike)))


def locate_model(model):
    """Return the name of a model, or its absolute path, which does not depend on the folder of a process."""
    model = conf.default_model if model is None else model
    return str(model) if str(model) in zoo.list_models() else str(Path(model).absolute())


@contextmanager
def process_alone():
    """
    Wait for the other tasks of this process, then use its processors alone, inside a ``with`` statement.

    On a Dask worker PyTorch has as many threads meanwhile as the worker has. In any other process their
    number is left as it is.
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
