import numpy as np
import pytest
from hypothesis import HealthCheck, settings

from muvera_adapters.samples import load_pydocs
from muvera_core import TokenBatch

# the first example may compile the kernels
settings.register_profile("project", deadline=None, max_examples=40, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("project")


@pytest.fixture(scope="session")
def pydocs():
    return load_pydocs()


@pytest.fixture(scope="session")
def pydocs_documents(pydocs):
    return TokenBatch.from_list(d.tokens for d in pydocs.source.documents())


@pytest.fixture
def rng():
    return np.random.default_rng(7)
