"""Migrations into an embedded collection: interrupted, resumed, refused, and what verification finds."""

import sqlite3
import uuid

import numpy as np
import pytest

from muvera_adapters.databases import Database, parse_target
from muvera_adapters.errors import (
    CollectionExists,
    CollectionNotFound,
    EncoderMismatch,
    InvalidInput,
    ModelMismatch,
    MuveraError,
    WrongUsage,
)
from muvera_adapters.migration import Condition, SourceChanged, estimate, migrate, read_rankings, verify
from muvera_adapters.migration import pipeline as pipeline_module
from muvera_adapters.migration.journal import Failure, Journal, Migration, default_path, snapshot_of
from muvera_adapters.qdrant import QdrantEdgeMuvera
from muvera_adapters.sources import open_source
from muvera_adapters.stores.token_model import TokenModel
from muvera_core import FDEConfig, FDEEncoder, TokenBatch, maxsim

DIM, N = 16, 150
ENCODER = FDEEncoder(FDEConfig(DIM, r_reps=6, k_sim=3, d_proj=8))
OTHER = FDEEncoder(FDEConfig(DIM, r_reps=6, k_sim=3, d_proj=8, seed=7))


@pytest.fixture(autouse=True)
def small_batches(monkeypatch):
    monkeypatch.setattr(pipeline_module, "_BATCH_DOCUMENTS", 8)


@pytest.fixture
def matrices(rng):
    found = [rng.normal(size=(int(n), DIM)).astype("f4") for n in rng.integers(1, 9, N)]
    return [m / np.linalg.norm(m, axis=1, keepdims=True) for m in found]


@pytest.fixture
def path(tmp_path, matrices):
    batch = TokenBatch.from_list(matrices)
    ids = np.array([f"d{i}" for i in range(N)])
    np.savez(tmp_path / "tokens.npz", tokens=batch.values, offsets=batch.offsets, ids=ids)
    return tmp_path / "tokens.npz"


class Changed:
    """A source whose documents pass through a function."""

    def __init__(self, source, change):
        self._source, self._change = source, change

    def __getattr__(self, name):
        return getattr(self._source, name)

    def __len__(self):
        return len(self._source)

    def documents(self, start=0):
        return map(self._change, self._source.documents(start))


def run(source, tmp_path, encoder=ENCODER, collection="x", check=True, **options):
    """Migrates; returns the report, and the ids and tokens that are then in the collection."""
    opened = open_source(source) if not isinstance(source, Changed) else source
    with Database(f"qdrant-edge:{tmp_path / 'data'}") as database:
        store, report = migrate(opened, database, collection, encoder, **options)
        if check:
            checked = verify(opened, store, report, sample=N, where=options.get("where", ()))
            assert checked.passed, checked
        return report, {d.id: d for d in store.scroll(with_tokens=True)}


def check_all(found, matrices):
    assert set(found) == {f"d{i}" for i in range(len(matrices))}
    for i, matrix in enumerate(matrices):
        np.testing.assert_allclose(found[f"d{i}"].tokens, matrix, atol=1e-3)


def test_everything_arrives(tmp_path, path, matrices):
    report, found = run(path, tmp_path)
    check_all(found, matrices)
    assert (report.documents, report.written, report.failed, report.resumed) == (N, N, [], 0)
    assert report.complete
    assert report.tokens == sum(map(len, matrices))
    again, found = run(path, tmp_path)
    assert (again.documents, again.resumed) == (N, N)
    check_all(found, matrices)


@pytest.mark.parametrize("stop", [0, 1, 8, 77, 149])
def test_a_run_that_ends_anywhere_is_finished_by_the_next(tmp_path, path, matrices, stop):
    def failing(document):
        if document.position == stop:
            raise KeyboardInterrupt
        return document

    with pytest.raises(KeyboardInterrupt):
        run(Changed(open_source(path), failing), tmp_path, check=False)
    report, found = run(path, tmp_path)
    assert report.resumed == stop // 8 * 8
    assert report.documents == report.written == N
    check_all(found, matrices)


def test_written_and_not_noted(tmp_path, path, matrices, monkeypatch):
    with monkeypatch.context() as patch:

        def killed(*_):
            raise KeyboardInterrupt

        patch.setattr(Journal, "advance", killed)
        with pytest.raises(KeyboardInterrupt):
            run(path, tmp_path, check=False)
    with QdrantEdgeMuvera.open(tmp_path / "data", "x") as store:
        assert store.count() == 8
    report, found = run(path, tmp_path)
    assert (report.resumed, report.written) == (0, N)
    check_all(found, matrices)


@pytest.mark.parametrize("made", [False, True])
def test_killed_while_the_collection_is_made(tmp_path, path, matrices, monkeypatch, made):
    create = QdrantEdgeMuvera.create

    def killed(*args, **options):
        if made:
            create(*args, **options).close()
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(QdrantEdgeMuvera, "create", killed)
        with pytest.raises(KeyboardInterrupt):
            run(path, tmp_path, check=False)
    _, found = run(path, tmp_path)
    check_all(found, matrices)


def test_a_changed_source_is_refused(tmp_path, path, matrices):
    run(path, tmp_path, limit=20, check=False)
    with np.load(path) as archive:
        content = dict(archive)
    content["tokens"] = content["tokens"][::-1]
    np.savez(path, **content)
    with pytest.raises(SourceChanged, match=r"the file tokens\.npz was written"):
        run(path, tmp_path)
    with QdrantEdgeMuvera.open(tmp_path / "data", "x") as store:
        assert store.count() == 20


def test_a_source_that_changes_while_it_is_read(tmp_path, path):
    def touching(document):
        if document.position == 100:
            path.touch()
        return document

    with pytest.raises(SourceChanged, match="changed while it was read"):
        run(Changed(open_source(path), touching), tmp_path)


def test_a_collection_that_changes_between_runs(tmp_path, path):
    run(path, tmp_path, check=False)
    source = f"qdrant-edge:{tmp_path / 'data'}"

    def copy(**options):
        opened = open_source(source, collection="x")
        try:
            with Database(f"qdrant-edge:{tmp_path / 'copy'}") as database:
                return migrate(opened, database, "y", ENCODER, **options)[1]
        finally:
            opened.close()

    assert copy(limit=16).documents == 16
    with QdrantEdgeMuvera.open(tmp_path / "data", "x") as store:
        ids = [d.id for d in store.scroll()]
        tokens = store.get([ids[3]], with_tokens=True)[0].tokens
        store.delete([ids[3]])
        store.upsert(["another one"], [tokens])
        moved = [d.id for d in store.scroll()][15] != ids[15]
    if moved:
        with pytest.raises(SourceChanged):
            copy()
    else:
        assert copy().complete


def test_a_collection_with_uuids_goes_on(tmp_path, matrices):
    ids = [uuid.UUID(int=i) for i in range(40)]
    with QdrantEdgeMuvera.create(tmp_path / "data", "x", ENCODER) as store:
        store.upsert(ids, matrices[:40])
    for limit in (10, None):
        source = open_source(f"qdrant-edge:{tmp_path / 'data'}", collection="x")
        with Database(f"qdrant-edge:{tmp_path / 'copy'}") as database:
            store, report = migrate(source, database, "y", ENCODER, limit=limit)
            assert report.documents == (limit or 40)
            found = {d.id for d in store.scroll()}
        source.close()
    assert found == set(ids)


def test_journals_are_for_one_migration(tmp_path, path):
    journal = tmp_path / "j.sqlite"
    run(path, tmp_path, limit=10, journal=journal, check=False)
    with pytest.raises(EncoderMismatch, match=ENCODER.fingerprint):
        run(path, tmp_path, OTHER, journal=journal)
    with pytest.raises(MuveraError, match="is the journal of a migration into"):
        run(path, tmp_path, collection="y", journal=journal)
    with pytest.raises(MuveraError, match="other documents"):
        run(path, tmp_path, journal=journal, where=[Condition.parse("a=1")])
    held = sqlite3.connect(journal, isolation_level=None)
    held.execute("BEGIN EXCLUSIVE")
    with pytest.raises(MuveraError, match="is another migration using it"):
        run(path, tmp_path, journal=journal)
    held.close()
    (tmp_path / "text").write_text("this is no database " * 100)
    with pytest.raises(MuveraError, match="not a journal"):
        run(path, tmp_path, collection="z", journal=tmp_path / "text")
    other = sqlite3.connect(tmp_path / "other.sqlite")
    other.execute("CREATE TABLE mine (x)")
    other.commit()
    other.close()
    with pytest.raises(MuveraError, match="not a journal"):
        run(path, tmp_path, collection="z", journal=tmp_path / "other.sqlite")
    assert run(path, tmp_path, journal=journal)[0].documents == N


def test_a_collection_that_exists(tmp_path, path, matrices):
    with QdrantEdgeMuvera.create(tmp_path / "data", "x", ENCODER) as store:
        store.upsert(["d0", "mine"], [np.eye(1, DIM), np.eye(2, DIM)])
    with pytest.raises(CollectionExists, match="--into-existing"):
        run(path, tmp_path)
    assert not list((tmp_path / "data").glob("*.sqlite"))
    with QdrantEdgeMuvera.open(tmp_path / "data", "x") as store:
        assert {d.id for d in store.scroll()} == {"d0", "mine"}
    with pytest.raises(CollectionExists):
        run(path, tmp_path, OTHER)
    with pytest.raises(EncoderMismatch):
        run(path, tmp_path, OTHER, into_existing=True)
    report, found = run(path, tmp_path, into_existing=True)
    assert report.there_before == 2
    assert len(found["mine"].tokens) == 2
    check_all({k: v for k, v in found.items() if k != "mine"}, matrices)


def model_of(tmp_path, collection):
    with QdrantEdgeMuvera.open(tmp_path / "data", collection) as store:
        return store.model


class Checkpoint:
    """A source of files that names its model, as a PLAID index does."""

    def __init__(self, source, name):
        self._source, self.model = source, TokenModel(name)

    def __getattr__(self, name):
        return getattr(self._source, name)

    def __len__(self):
        return len(self._source)


def test_a_collection_of_another_model(tmp_path, path):
    run(path, tmp_path, model="org/model@1", limit=9, check=False)
    assert model_of(tmp_path, "x") == TokenModel("org/model@1")
    with pytest.raises(ModelMismatch, match=r"org/model@1.*org/other"):
        run(path, tmp_path, model="org/other", check=False)
    more = {"journal": tmp_path / "more.sqlite", "into_existing": True, "limit": 9}
    with Database(f"qdrant-edge:{tmp_path / 'data'}") as database:
        with pytest.raises(ModelMismatch, match="--model"):
            migrate(Checkpoint(open_source(path), "a/checkpoint"), database, "x", ENCODER, **more)
        assert not (tmp_path / "more.sqlite").exists()
        _, report = migrate(
            Checkpoint(open_source(path), "a/checkpoint"), database, "x", ENCODER, model="org/model", **more
        )
        assert report.written == 9
    assert model_of(tmp_path, "x") == TokenModel("org/model@1")


def test_a_model_is_kept_only_where_it_is_named(tmp_path, path):
    with Database(f"qdrant-edge:{tmp_path / 'data'}") as database:
        migrate(Checkpoint(open_source(path), "a/checkpoint"), database, "x", ENCODER, limit=9)
    assert model_of(tmp_path, "x") is None
    again = {"journal": tmp_path / "again.sqlite", "into_existing": True, "limit": 9, "check": False}
    run(path, tmp_path, model="org/model", **again)
    assert model_of(tmp_path, "x") is None


def test_the_model_of_a_collection_goes_along(tmp_path, path):
    model = TokenModel("org/model@1", {"query": "q: "})
    run(path, tmp_path, model=model)
    with Database(f"qdrant:{tmp_path / 'copy'}") as database:
        source = open_source(f"qdrant-edge:{tmp_path / 'data'}", collection="x")
        with pytest.raises(ModelMismatch, match=r"data x were made by org/model@1"):
            migrate(source, database, "y", ENCODER, model="org/other")
        store, _ = migrate(source, database, "y", ENCODER, limit=9)
        assert store.model == model
        source.close()


def test_a_collection_that_is_gone(tmp_path, path):
    run(path, tmp_path, limit=10, check=False)
    with QdrantEdgeMuvera.open(tmp_path / "data", "x") as store:
        store.drop()
    with pytest.raises(CollectionNotFound, match="to begin anew"):
        run(path, tmp_path)


def test_documents_that_cannot_be_stored_are_reported(tmp_path, path, matrices):
    bad = {5: np.nan, 6: np.inf, 77: 0.0}

    def broken(document):
        if document.position in bad:
            return document._replace(tokens=document.tokens * np.float32(bad[document.position]))
        return document

    with np.errstate(invalid="ignore"):
        report, found = run(Changed(open_source(path), broken), tmp_path, check=False)
        assert [(f.position, f.id) for f in report.failed] == [(5, "d5"), (6, "d6"), (77, "d77")]
        assert "NaN" in report.failed[0].reason
        assert "all its tokens are zeros" in report.failed[2].reason
        assert (report.documents, report.written, len(found)) == (N, N - 3, N - 3)
        # what is still wrong fails again; what is not is written
        bad.pop(5)
        report, found = run(Changed(open_source(path), broken), tmp_path, check=False)
    assert [f.position for f in report.failed] == [6, 77]
    assert "d5" in found
    assert report.tokens == sum(map(len, matrices)) - len(matrices[6]) - len(matrices[77])


def test_a_source_of_which_nothing_can_be_stored(tmp_path, path):
    broken = Changed(open_source(path), lambda d: d._replace(tokens=d.tokens * 0))
    with pytest.raises(MuveraError, match="documents all failed"):
        run(broken, tmp_path)


def test_limit_and_the_rest(tmp_path, path, matrices):
    report, found = run(path, tmp_path, limit=13)
    assert (report.documents, len(found), report.complete) == (13, 13, False)
    assert run(path, tmp_path, limit=13)[0].documents == 13
    report, found = run(path, tmp_path, limit=N)
    assert (report.documents, report.resumed, report.complete) == (N, 13, True)
    check_all(found, matrices)


def test_where_and_payload(tmp_path, path):
    def labelled(document):
        return document._replace(
            payload={"n": document.position, "kind": "even" if document.position % 2 == 0 else "odd"}
        )

    conditions = [Condition.parse("kind=even"), Condition.parse("n>=100")]
    report, found = run(
        Changed(open_source(path), labelled), tmp_path, where=conditions, keep=lambda key: key == "n", check=False
    )
    assert {d.payload["n"] for d in found.values()} == set(range(100, N, 2))
    assert all(d.payload.keys() == {"n"} for d in found.values())
    assert report.documents == len(found)


@pytest.mark.parametrize(
    ("text", "payload", "passes"),
    [
        ("lang=en", {"lang": "en"}, True),
        ("lang=en", {"lang": "de"}, False),
        ("lang=en", {}, False),
        ("lang!=en", {}, True),
        ("year>=2020", {"year": 2020}, True),
        ("year>=2020", {"year": "2021"}, False),
        ("year<2020.5", {"year": 2020}, True),
        ("ok=true", {"ok": True}, True),
        ('n="3"', {"n": "3"}, True),
        ("n=3", {"n": "3"}, False),
        ("url=http://x?a=b", {"url": "http://x?a=b"}, True),
    ],
)
def test_conditions(text, payload, passes):
    assert Condition.parse(text)(payload) is passes


def test_what_is_no_condition():
    with pytest.raises(WrongUsage, match="KEY=VALUE"):
        Condition.parse("lang")


def test_workers_are_for_servers(tmp_path, path):
    with pytest.raises(WrongUsage, match="one worker"):
        run(path, tmp_path, workers=2)


def test_several_workers(tmp_path, path, matrices, monkeypatch):
    # local mode answers several threads when it keeps nothing on disk
    from qdrant_client import QdrantClient

    database = Database("qdrant:http://localhost:1")
    database._client = QdrantClient(":memory:")
    store, report = migrate(open_source(path), database, "x", ENCODER, workers=3, journal=tmp_path / "j")
    check_all({d.id: d for d in store.scroll(with_tokens=True)}, matrices)
    assert report.written == N
    database._client.close()


def test_estimate_is_what_the_collection_takes(tmp_path, path):
    source = open_source(path)
    size = estimate(source, ENCODER, parse_target("qdrant-edge:x"))
    assert size.exact
    run(path, tmp_path)
    with QdrantEdgeMuvera.open(tmp_path / "data", "x") as store:
        info = store.info()
    assert size.fde_bytes == info.fde_bytes
    assert size.code_bytes == pytest.approx(info.code_bytes, rel=0.02)  # the store leaves out what is beside the codes
    assert size.token_bytes == pytest.approx(info.token_bytes, rel=0.3)  # the store's is from a sample
    assert size.encode_seconds > 0
    some = estimate(source, ENCODER, parse_target("qdrant-edge:x"), limit=15)
    assert (some.documents, some.exact) == (15, False)


@pytest.mark.parametrize(
    ("damage", "fails"),
    [
        (lambda s, d: s.delete([d[0].id]), {"count", "documents"}),
        (lambda s, d: s.upsert([d[0].id], [d[0].tokens * 0.99], [{"n": 0}]), {"vectors"}),
        (lambda s, d: s.upsert([d[0].id], [d[0].tokens[:-1]], [{"n": 0}]), {"token counts"}),
        (lambda s, d: s.upsert([d[0].id], [d[0].tokens], [{"n": 1}]), {"payloads"}),
        (lambda s, d: s.upsert([d[0].id], [d[0].tokens], [{}], replace=True), {"payloads"}),
        (lambda s, d: s.upsert(["more"], [d[0].tokens]), {"count"}),
        # every document under the id of its neighbour, as a shifted map would have it
        (
            lambda s, d: s.upsert([x.id for x in d], [x.tokens for x in d[1:] + d[:1]], [x.payload for x in d]),
            {"vectors", "self-retrieval", "token counts"},
        ),
    ],
)
def test_verification_finds_damage(tmp_path, path, damage, fails):
    source = Changed(open_source(path), lambda d: d._replace(payload={"n": d.position}))
    with Database(f"qdrant-edge:{tmp_path / 'data'}") as database:
        store, report = migrate(source, database, "x", ENCODER)
        documents = [d for d in source.documents() if len(d.tokens) > 1]
        assert verify(source, store, report, sample=N).passed
        damage(store, documents)
        checked = verify(source, store, report, sample=N)
    assert not checked.passed
    assert fails <= {check.name for check in checked.checks if not check.passed}


def test_rankings_side_by_side(tmp_path, path, matrices):
    queries = TokenBatch.from_list(matrices[:5])
    right = [[f"d{i}" for i in np.argsort(-maxsim(q, matrices), kind="stable")[:10]] for q in matrices[:5]]
    positions = [[i.removeprefix("d") for i in ids] for ids in right]
    source = open_source(path)

    def check(rankings):
        found = verify(source, store, report, sample=10, queries=queries, rankings=rankings)
        return found.checks[-1]

    with Database(f"qdrant-edge:{tmp_path / 'data'}") as database:
        store, report = migrate(source, database, "x", ENCODER)
        for rankings in (right, positions):
            found = check(rankings)
            assert found.name == "rankings"
            assert found.passed
            assert found.figures["old_and_exhaustive"] == 1
            assert found.figures["old_and_two_stage"] >= 0.98
            assert found.figures["unknown_ids"] == 0
        assert check(None).figures["exhaustive_and_two_stage"] >= 0.98
        # a collection whose documents lost their names does not find what the old index found
        store.upsert([f"d{i}" for i in range(N)], [matrices[i - 1] for i in range(N)])
        assert not check(right).passed


def test_rankings_files(tmp_path):
    def read(name, text, n=2):
        (tmp_path / name).write_text(text)
        return read_rankings(tmp_path / name, n)

    assert read("a.json", '{"results": [[[3, 1.5], [1, 0.5]], []]}') == [["3", "1"], []]
    assert read("b.json", '[["x", "y"], [{"id": "z", "score": 1}]]') == [["x", "y"], ["z"]]
    assert read("c.tsv", "1\t7\t2\t0.5\n0\t4\t1\t9\n1\t8\t1\t0.7\n") == [["4"], ["8", "7"]]
    with pytest.raises(InvalidInput, match="results of 1 queries, but there are 2"):
        read("d.json", "[[1]]")
    for name, text in (
        ("e.json", "{}"),
        ("f.json", "[[1.5], []]"),
        ("g.json", "["),
        ("h.tsv", "a b"),
        ("i.tsv", "9\t1\t1"),
    ):
        with pytest.raises(InvalidInput):
            read(name, text)


def test_sampling_of_a_large_source_is_spread(tmp_path, path):
    source = open_source(path)
    with Database(f"qdrant-edge:{tmp_path / 'data'}") as database:
        store, report = migrate(source, database, "x", ENCODER)
        checked = verify(source, store, report, sample=40)
    sampled = next(c for c in checked.checks if c.name == "documents").figures["sampled"]
    assert 20 <= sampled <= 40


def test_journal_places(tmp_path):
    def place(target):
        return str(default_path(parse_target(target), "c"))

    assert place("qdrant-edge:data") == "data/c.migration.sqlite"
    assert place("milvus:x/m.db") == "x/m.db.c.migration.sqlite"
    assert place("qdrant:http://localhost:6333") == "c.qdrant-localhost-6333.migration.sqlite"


def test_padding_is_left_out_and_counted(tmp_path, path, matrices):
    zeros = np.zeros((2, DIM), np.float32)

    def padded(document):
        if document.position in (3, 9):
            return document._replace(tokens=np.vstack([document.tokens, zeros]))
        return document._replace(tokens=zeros) if document.position == 20 else document

    report, found = run(Changed(open_source(path), padded), tmp_path)
    assert [failure.position for failure in report.failed] == [20]
    assert (report.written, report.zero_rows) == (N - 1, 4)
    np.testing.assert_allclose(found["d3"].tokens, matrices[3], atol=1e-3)


def test_a_payload_that_cannot_be_stored_fails_alone(tmp_path, path):
    def changed(document):
        return document._replace(payload={"a": {"b": b"x"}} if document.position == 20 else {"n": document.position})

    report, found = run(Changed(open_source(path), changed), tmp_path)
    assert [failure.position for failure in report.failed] == [20]
    assert "key 'a.b'" in report.failed[0].reason
    assert found["d3"].payload == {"n": 3}


def test_verification_names_the_first_key_that_differs(tmp_path, path):
    def first(document):
        return document._replace(payload={"n": document.position, "tags": ["a", "b"]})

    def second(document):
        return document._replace(payload={"n": document.position, "tags": ["a", "c"]})

    with Database(f"qdrant-edge:{tmp_path / 'data'}") as database:
        source = open_source(path)
        store, report = migrate(Changed(source, first), database, "x", ENCODER)
        assert verify(Changed(source, first), store, report, sample=N).passed
        checked = verify(Changed(source, second), store, report, sample=N)
    (wrong,) = [check for check in checked.checks if not check.passed]
    assert "'d0', key 'tags[1]': 'c' became 'b'" in wrong.text


def test_a_full_disk_under_the_journal(tmp_path, path):
    source = open_source(path)
    about = Migration(snapshot_of(source), str(path), "qdrant-edge:x", "x", ENCODER.fingerprint, [])
    with Journal(tmp_path / "journal", about) as journal:
        (pages,) = journal._database.execute("PRAGMA page_count").fetchone()
        journal._database.execute(f"PRAGMA max_page_count = {pages}")
        failures = [Failure(i, f"d{i}", "x" * 1000) for i in range(100)]
        with pytest.raises(MuveraError, match=r"journal: the journal cannot be read or written: .*full"):
            journal.advance(100, 100, 0, "d99", failures)
