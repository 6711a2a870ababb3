"""The example that needs a Weaviate server."""

from __future__ import annotations

import pytest

from integration_tests import weaviate_server
from muvera_adapters.testing.session import CannotStart
from tests.test_examples import output


def test_pages_in_weaviate(tmp_path):
    try:
        with weaviate_server.address(tmp_path) as (host, port, grpc_port):
            pages = ["annual_report_cover.png", "revenue_by_quarter.png", "list_of_offices.png"]
            where = ["--host", host, "--port", port, "--grpc-port", grpc_port]
            found = output("pages_weaviate.py", "revenue of the quarter", *pages, *where)
    except CannotStart as problem:
        pytest.skip(str(problem))
    assert found[0].split()[1] == "revenue_by_quarter.png"
    assert len(found) == 3
