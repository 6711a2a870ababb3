"""Every index, into every database that starts here; and migrations that are killed."""

from __future__ import annotations

import random
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import servers
from muvera_adapters import samples
from muvera_adapters.databases import Database, parse_target, spec_of, specs
from muvera_adapters.migration import estimate, migrate, read_rankings, verify
from muvera_adapters.sources import open_queries, open_source
from muvera_adapters.testing import CannotStart
from muvera_core import FDEConfig, FDEEncoder
from servers import weaviate_server

ROOT = Path(__file__).parent.parent
DATA = ROOT / "tests" / "data"
SAMPLE = Path(samples.__file__).parent / "pydocs" / "index"
INDEXES = [*sorted(path.parent for path in (DATA / "plaid").glob("*/index")), SAMPLE]
ENCODER = FDEEncoder(FDEConfig(128))

pytestmark = pytest.mark.filterwarnings("ignore::muvera_adapters.plaid.IndexWarning")


def _embedded() -> dict[str, tuple[str, str]]:
    """Databases that run in this process by the names of these tests: scheme, and name of their directory or file."""
    found = {}
    for spec in specs():
        places = [form.place for form in spec.forms]
        for form in spec.forms:
            if form.place == "directory":
                found[f"{spec.scheme}-path" if "server" in places else spec.scheme] = (spec.scheme, "data")
            elif form.place == "file":
                found[spec.scheme] = (spec.scheme, f"data.{form.location.rpartition('.')[2]}")
    return found


EMBEDDED = _embedded()


def _target(name: str, path: Path) -> str:
    if name in EMBEDDED:
        scheme, place = EMBEDDED[name]
        try:
            spec_of(scheme).check_installed()
            if place.endswith(".db"):
                import milvus_lite  # noqa: F401
        except ImportError as error:
            raise CannotStart(str(error)) from None
        return f"{scheme}:{path / place}"
    host, port, grpc_port = servers.shared(weaviate_server.running)
    return f"weaviate:http://{host}:{port}?grpc_port={grpc_port}"


@pytest.fixture(params=[*EMBEDDED, "weaviate"])
def target(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    try:
        return _target(request.param, tmp_path)
    except CannotStart as problem:
        if request.param in request.config.getoption("--require"):
            pytest.fail(f"{request.param} is required: {problem}")
        pytest.skip(f"{request.param}: {problem}")


@pytest.fixture
def collection(target: str) -> Iterator[str]:
    name = f"Migrated{uuid.uuid4().hex[:8]}"
    yield name
    if target.startswith("weaviate"):
        with Database(target) as database:
            database.open(name).drop()


def _path(index: Path) -> Path:
    if index == SAMPLE:
        return index
    return index / "index" / "colbert" if (index / "index" / "colbert").is_dir() else index / "index"


# the texts of some of these indexes are of one topic
@pytest.mark.filterwarnings("ignore::muvera_adapters.errors.SharedDirection")
@pytest.mark.parametrize("index", INDEXES, ids=lambda path: "pydocs" if path == SAMPLE else path.name)
def test_every_index(target: str, collection: str, index: Path, tmp_path: Path) -> None:
    if index == SAMPLE and target.startswith("qdrant:"):
        pytest.skip("qdrant-client's local mode needs seconds for each search of 2,041 documents")
    source = open_source(_path(index))
    size = estimate(source, ENCODER, parse_target(target))
    queries = rankings = None
    if (index / "search.json").exists():
        queries = open_queries(DATA / "plaid_queries.npz")
        rankings = read_rankings(index / "search.json", len(queries))
    with Database(target) as database:
        store, report = migrate(source, database, collection, ENCODER, journal=tmp_path / "journal")
        checked = verify(
            source,
            store,
            report,
            sample=len(source) if index != SAMPLE else 100,
            queries=queries,
            rankings=rankings,
        )
        assert (report.written, report.failed, report.complete) == (len(source), [], True)
        assert checked.passed, [check.text for check in checked.checks if not check.passed]
        names = [check.name for check in checked.checks]
        assert names[:7] == ["count", "documents", "token counts", "payloads", "vectors", "self-retrieval", "scores"]
        assert ("rankings" in names) == (rankings is not None)
        # what the estimate said is what the database counts
        if target.startswith("qdrant:"):
            return  # qdrant-client's local mode has other files than its configuration says
        info = store.info()
        assert size.fde_bytes == info.fde_bytes
        assert size.code_bytes == pytest.approx(info.code_bytes, rel=0.02)  # the store leaves out what is beside codes
        assert size.token_bytes == pytest.approx(info.token_bytes, rel=0.4)  # the store's is from a sample


def test_killed_at_ten_moments(target: str, collection: str, tmp_path: Path) -> None:
    """Each run is killed after it has read some documents, and a random moment more; the last ends by itself."""
    path, journal = _path(DATA / "plaid" / "stanford_nbits4"), tmp_path / "journal"
    source = open_source(path)
    generator = random.Random(11)
    # a run stays where it is ten documents after its place
    places = [-1, *sorted(generator.sample(range(source.n_positions - 11), 9))]
    # resumed runs begin a little before, so places are reached in order
    seen = [_run(path, target, collection, journal, place, generator) for place in places]
    assert seen == [True] * 10, "a run ended before it was killed"
    assert not _run(path, target, collection, journal, None, generator)
    wanted = {d.id: d.tokens for d in source.documents()}
    with Database(target) as database:
        store = database.open(collection)
        found = list(store.scroll(with_tokens=True))
    assert sorted(d.id for d in found) == sorted(wanted)
    for document in found:
        np.testing.assert_allclose(document.tokens, wanted[document.id], atol=1e-3)


def _run(path: Path, target: str, collection: str, journal: Path, place: int | None, generator: random.Random) -> bool:
    """Runs the migration, and kills it at a place of the source; returns whether it was killed."""
    command = [sys.executable, "-m", "integration_tests.migrating", str(path), target, collection, str(journal)]
    command += [str(place)] if place is not None else []
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        assert process.stdout is not None
        if place == -1:  # while it starts, and makes the collection
            time.sleep(generator.uniform(0.3, 1.5))
            process.kill()
        for line in process.stdout:
            if place is not None and int(line) >= place:
                # reading, encoding, writing or noting what comes next
                time.sleep(generator.uniform(0, 0.05))
                process.kill()
                break
        for _ in process.stdout:
            pass
        process.wait()
    assert process.returncode in (0, -9)
    return process.returncode == -9


def test_from_one_database_to_another(target: str, collection: str, tmp_path: Path) -> None:
    path = _path(DATA / "plaid" / "ragatouille_assembled")
    first = open_source(path)
    with Database(f"qdrant-edge:{tmp_path / 'first'}") as database:
        migrate(first, database, "first", ENCODER)
    source = open_source(f"qdrant-edge:{tmp_path / 'first'}", collection="first")
    try:
        with Database(target) as database:
            store, report = migrate(source, database, collection, ENCODER, journal=tmp_path / "journal")
            checked = verify(source, store, report, sample=len(source))
            assert checked.passed, [check.text for check in checked.checks if not check.passed]
            assert {d.id: d.payload["text"] for d in store.scroll()} == {
                d.id: d.payload["text"] for d in first.documents()
            }
    finally:
        source.close()
