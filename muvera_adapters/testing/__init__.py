"""The contract of a store, as pytest tests that run against any store (extra ``testing``).

To test your own store, import the tests into a module of your test suite that also has a fixture ``session``, which
yields a :class:`Session` with an empty database::

    import pytest

    from muvera_adapters.testing.contract import *  # the tests, and the fixtures that they share


    @pytest.fixture
    def session(tmp_path):
        with my_database(tmp_path) as session:
            yield session

``muvera_adapters.testing.corpus`` has the documents and queries of the tests, and computes the expected answers with
numpy. Its ``DIM`` is the width of the tokens in every collection that the tests create.

Importing this package registers the tests for pytest's assertion rewriting, so that a failed ``assert`` also shows both
sides in your suite.
"""

import pytest

from muvera_adapters.testing.session import Blocking, CannotStart, Engine, Session

# all modules of the contract; must come before their first import, and nothing can import them before this package
pytest.register_assert_rewrite("muvera_adapters.testing.contract")

__all__ = ["Blocking", "CannotStart", "Engine", "Session"]
