# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
A cluster for the tests of this folder.
"""

import pytest

WAIT = 120  # seconds, for a busy machine


@pytest.fixture(scope="package")
def cluster():
    """Two worker processes of two threads, which come back when they were killed, however long it takes."""
    distributed = pytest.importorskip("distributed")
    import dask

    options = {"n_workers": 2, "threads_per_worker": 2, "processes": True, "dashboard_address": ":0"}
    with (
        dask.config.set({"distributed.deploy.lost-worker-timeout": WAIT}),
        distributed.LocalCluster(**options) as cluster,
    ):
        yield cluster


@pytest.fixture
def client(cluster):
    """A client of the cluster, both of whose workers are there."""
    from distributed import Client

    with Client(cluster, timeout=WAIT) as client:
        client.wait_for_workers(2, timeout=WAIT)
        yield client
