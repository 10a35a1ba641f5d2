# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
A cluster for the tests of this folder.
"""

import pytest


@pytest.fixture(scope="package")
def client():
    """Two worker processes of two threads."""
    distributed = pytest.importorskip("distributed")
    options = {"n_workers": 2, "threads_per_worker": 2, "processes": True, "dashboard_address": ":0"}
    with distributed.LocalCluster(**options) as cluster, distributed.Client(cluster) as client:
        client.wait_for_workers(2)
        yield client
