"""One size model: the commands agree, and what it says is what engines write."""

import json

import numpy as np
import pytest

from muvera_adapters.databases import Database, parse_target, specs
from muvera_adapters.errors import WrongUsage
from muvera_adapters.evidence import estimate
from muvera_adapters.migration import estimate as estimate_migration
from muvera_adapters.sources import open_source
from muvera_adapters.stores.database import quantization_option
from muvera_adapters.stores.sizes import Planned, disk_of
from muvera_core import FDEConfig, FDEEncoder
from tests.cli.test_migrate import muvera

DOCUMENTS, TOKENS, DIM = 60, 20, 32
FORMS = [
    ("qdrant-edge:DIR", "qdrant-edge:data"),
    ("qdrant:URL", "qdrant:http://localhost:1"),
    ("qdrant:DIR", "qdrant:data"),
    ("weaviate:URL", "weaviate:http://localhost:1"),
    ("milvus:URL", "milvus:http://localhost:1"),
    ("milvus:FILE.db", "milvus:data.db"),
]


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    path = tmp_path_factory.mktemp("sizes")
    rng = np.random.default_rng(4)
    values = rng.normal(size=(DOCUMENTS * TOKENS, DIM)).astype("f4")
    np.savez(path / "tokens.npz", tokens=values, lengths=np.full(DOCUMENTS, TOKENS))
    return path


def test_inspect_migrate_and_estimate_agree(home):
    inspected = json.loads(muvera("inspect", "tokens.npz", "--json", cwd=home).stdout)
    assert list(inspected["targets"]) == [form for spec in specs() for form in spec.targets]
    dim = inspected["fde_dim"]
    # the migration's library call, which --dry-run prints
    source, encoder = open_source(home / "tokens.npz"), FDEEncoder(FDEConfig(DIM))
    assert encoder.dim == dim
    for form, target in FORMS:
        two_stages, _ = estimate(DOCUMENTS, TOKENS, dim, token_dim=DIM, databases=[target])
        sizes = inspected["targets"][form]
        assert sizes["total_bytes"] == two_stages.disk
        assert sizes["ram_bytes"] == two_stages.ram
        assert estimate_migration(source, encoder, parse_target(target)).sizes() == sizes
    dry = ["migrate", "tokens.npz", "--to", "milvus:data.db", "--collection", "x", "--dry-run", "--json"]
    found = json.loads(muvera(*dry, cwd=home).stdout)["estimate"]
    assert {name: found[name] for name in sizes} == inspected["targets"]["milvus:FILE.db"]
    command = ["estimate", DOCUMENTS, "--tokens", TOKENS, "--fde-dim", dim, "--token-dim", DIM, "--json"]
    printed = json.loads(muvera(*command, "--database", "milvus:data.db").stdout)["estimates"]
    assert printed[0]["disk"] == found["total_bytes"]


def test_a_database_stands_for_the_first_form_of_its_targets():
    by_name = estimate(1000, 80, 10_240, databases=["milvus"])
    by_target = estimate(1000, 80, 10_240, databases=["milvus:http://localhost:1"])
    assert [e.parts for e in by_name] == [e.parts for e in by_target]
    assert [e.target for e in by_name] == ["milvus:URL"] * 2
    in_file = estimate(1000, 80, 10_240, databases=["milvus:data.db"])
    assert in_file[0].disk < by_name[0].disk
    assert {e.database for e in estimate(1000, 80, 10_240)} == {spec.scheme for spec in specs()}


@pytest.mark.parametrize("spec", specs(), ids=lambda spec: spec.scheme)
def test_every_preset_of_every_form(spec):
    for form in spec.forms:
        for preset, bits in spec.quantizations.items():
            parts = spec.two_stages(Planned(1000, 80, 10_240, 128, preset, form.place))
            assert disk_of(parts) == pytest.approx(sum(part.disk for part in parts), abs=1)
            assert disk_of(parts, "encodings") >= 1000 * 10_240 * 2
            assert disk_of(parts, "tokens") >= 1000 * 80 * 128 * 2
            # qdrant-client's local mode has no codes
            if bits and not (spec.scheme == "qdrant" and form.place == "directory"):
                assert disk_of(parts, "codes") == pytest.approx(1000 * 10_240 * bits / 8, rel=0.02)
        assert disk_of(spec.per_token(Planned(1000, 80, 10_240, 128, place=form.place))) >= 1000 * 80 * 128 * 4
        for dim in (512, 10_240):
            assert spec.quantization("auto", dim, form.place) in spec.quantizations
    with pytest.raises(WrongUsage, match="has no quantization 'q3'"):
        spec.quantization("q3", 2_560, "server")


# --- against files on disk: documents of 40 tokens of 128 dimensions, encodings of 2,560

COUNT, LENGTH = 1000, 40
#: share by which the files may differ from the estimate
TOLERANCE = 0.04


def _fill(target, quantization):
    rng = np.random.default_rng(0)
    encoder = FDEEncoder(FDEConfig(128, r_reps=5, k_sim=5, d_proj=16))
    with Database(target) as database:
        store = database.create("x", encoder, **quantization_option(quantization))
        for start in range(0, COUNT, 250):
            tokens = rng.normal(size=(250, LENGTH, 128)).astype("f4")
            store.upsert([f"d{i}" for i in range(start, start + 250)], list(tokens))
        store.wait_indexed()
    planned = Planned(COUNT, LENGTH, encoder.dim, 128, quantization, database.target.place)
    return database.spec.two_stages(planned)


def _disk(path):
    return sum(file.stat().st_blocks * 512 for file in path.rglob("*") if file.is_file())


@pytest.mark.parametrize("quantization", ["int8", "none"])
def test_files_of_qdrant_edge(tmp_path, quantization):
    parts = _fill(f"qdrant-edge:{tmp_path / 'data'}", quantization)
    log = next(part.disk for part in parts if part.name == "log of writes")
    assert _disk(tmp_path / "data" / "x" / "wal") <= log
    assert _disk(tmp_path / "data" / "x" / "segments") == pytest.approx(disk_of(parts) - log, rel=TOLERANCE)


def test_files_of_qdrants_local_mode(tmp_path):
    parts = _fill(f"qdrant:{tmp_path / 'data'}", "int8")
    assert _disk(tmp_path / "data") == pytest.approx(disk_of(parts), rel=TOLERANCE)


@pytest.mark.parametrize("quantization", ["none", "sq8"])
def test_files_of_milvus_lite(tmp_path, quantization):
    pytest.importorskip("milvus_lite")
    from milvus_lite.server_manager import server_manager_instance

    path = tmp_path / "data.db"
    parts = _fill(f"milvus:{path}", quantization)
    # the index is written when the file is opened again
    server_manager_instance.release_server(str(path))
    with Database(f"milvus:{path}") as database:
        assert database.open("x").count() == COUNT
    server_manager_instance.release_server(str(path))
    assert _disk(path) == pytest.approx(disk_of(parts), rel=TOLERANCE)
