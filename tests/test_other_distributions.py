"""A database that another distribution brings is found by its entry point, and every command works with it."""

import inspect
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import muvera_adapters
from muvera_adapters.databases import Database, is_target, parse_target, schemes, spec_of, specs
from muvera_adapters.errors import MuveraError, WrongUsage
from muvera_adapters.migration.journal import default_path
from muvera_adapters.stores.protocol import Store

DIM = 16
OURS = schemes()


def install(path, distribution, **points):
    """A distribution with entry points, as pip would leave it."""
    about = path / f"{distribution.replace('-', '_')}-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.0\n")
    lines = [f"{name} = {value}" for name, value in points.items()]
    (about / "entry_points.txt").write_text("\n".join(["[muvera_adapters.databases]", *lines]))


@pytest.fixture
def site(tmp_path, monkeypatch):
    path = tmp_path / "site"
    path.mkdir()
    shutil.copy(Path(__file__).with_name("shelf.py"), path / "shelf.py")
    monkeypatch.syspath_prepend(path)
    yield path
    sys.modules.pop("shelf", None)


@pytest.fixture
def shelf(site):
    install(site, "muvera-shelf", shelf="shelf:SHELF")
    return site


def test_it_is_a_database_like_any_other(shelf, tmp_path):
    assert schemes()[-1] == "shelf"
    assert is_target("shelf:x")
    target = parse_target("shelf:x")
    assert default_path(target, "c") == Path("x/c.migration.sqlite")
    with pytest.raises(WrongUsage, match=r"targets are qdrant-edge:DIR, .*, shelf:DIR$"):
        parse_target("other:x")
    with pytest.raises(WrongUsage, match="'shelf:' has no location: give DIR"):
        parse_target("shelf:")
    with Database(f"shelf:{tmp_path / 'data'}") as database, pytest.raises(MuveraError, match="there is no"):
        database.open("x")


def test_the_commands(shelf, tmp_path):
    rng = np.random.default_rng(2)
    tokens = rng.normal(size=(40, 3, DIM)).astype("f4")
    np.savez(tmp_path / "tokens.npz", tokens=tokens.reshape(-1, DIM), lengths=np.full(40, 3))
    np.save(tmp_path / "q.npy", tokens[7])
    here = str(Path(muvera_adapters.__file__).parent.parent)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([here, str(shelf)]), "COLUMNS": "300"}

    def muvera(*arguments, status=0):
        command = [sys.executable, "-c", "from muvera_adapters.cli import app; app()", *map(str, arguments)]
        done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment, check=False)
        assert done.returncode == status, done.stderr
        return done.stdout if status == 0 else done.stderr

    assert "shelf:DIR" in muvera("migrate", "--help")
    sizes = json.loads(muvera("inspect", "tokens.npz", "--json"))["targets"]["shelf:DIR"]
    assert sizes["total_bytes"] == 4 * (40 * 2_560 + tokens.size)
    found = json.loads(muvera("estimate", 40, "--tokens", 3, "--token-dim", DIM, "--database", "shelf", "--json"))
    assert found["estimates"][0]["disk"] == sizes["total_bytes"]
    report = json.loads(muvera("migrate", "tokens.npz", "--to", "shelf:data", "--collection", "x", "--json"))
    assert report["migration"]["written"] == 40
    assert report["verification"]["passed"]
    assert report["estimate"]["total_bytes"] == sizes["total_bytes"]
    assert (tmp_path / "data" / "x.migration.sqlite").exists()
    hits = json.loads(muvera("search", "shelf:data", "--collection", "x", "--queries", "q.npy", "--json"))
    assert hits["results"][0][0]["id"] == 7
    assert "40 documents were compared: 0 have a stale FDE" in muvera("verify", "shelf:data", "--collection", "x")
    assert json.loads(muvera("repair", "shelf:data", "--collection", "x", "--json")) == {"repaired": 3}
    again = json.loads(muvera("migrate", "tokens.npz", "--to", "shelf:data", "--collection", "x", "--json"))
    assert again["migration"]["repaired"] == 3
    refused = muvera("repair", "qdrant-edge:data", "--collection", "x", status=2)
    assert "needs no repair; the command applies to weaviate, shelf" in refused
    backfill = ["backfill", "shelf:data", "--collection", "x", "--tokens-vector"]
    assert "0 documents got their FDE" in muvera(*backfill, "tokens")
    assert "no vector 'other'; there are: 'tokens'" in muvera(*backfill, "other", status=1)
    refused = muvera(*backfill, "tokens", "--alias", "y", status=2)
    takers = ", ".join(scheme for scheme in OURS if "alias" in spec_of(scheme).backfill_options)
    assert f"--alias does not apply to Shelf; it applies to {takers}" in refused


def test_one_that_cannot_be_loaded_does_not_stop_the_others(site):
    install(site, "muvera-broken", broken="no_such_module:X", wrong="shelf:ShelfStore", other="shelf:SHELF")
    with pytest.raises(MuveraError, match=r"the database 'broken' of muvera-broken .*no_such_module"):
        parse_target("broken:x")
    with pytest.raises(MuveraError, match="must be a DatabaseSpec"):
        spec_of("wrong")
    with pytest.raises(MuveraError, match="has the scheme 'shelf'"):
        spec_of("other")
    with pytest.warns(UserWarning, match="muvera-broken") as warned:
        found = [spec.scheme for spec in specs()]
    assert len(warned) == 3
    assert found == OURS
    assert parse_target("qdrant:x").scheme == "qdrant"
    with pytest.raises(WrongUsage, match="targets are qdrant-edge:DIR"):
        parse_target("nothing:x")


def test_names_that_are_taken(shelf):
    install(shelf, "muvera-second", shelf="second:SHELF", qdrant="second:QDRANT")
    with pytest.raises(MuveraError, match="muvera-second and muvera-shelf both have a database 'shelf'"):
        parse_target("shelf:x")
    assert spec_of("qdrant").title == "Qdrant"
    ignored = "'qdrant' of muvera-second is ignored"
    with pytest.warns(UserWarning, match="both have"), pytest.warns(UserWarning, match=ignored):
        assert [spec.scheme for spec in specs()] == OURS


@pytest.mark.parametrize("spec", specs(), ids=lambda spec: spec.scheme)
def test_stores_have_every_common_method(spec):
    for name, method in inspect.getmembers(Store, inspect.isfunction):
        if name.startswith("_"):
            continue
        theirs = inspect.signature(getattr(spec.store_class(), name)).parameters
        for parameter in inspect.signature(method).parameters.values():
            assert parameter.name in theirs, (name, parameter.name)
            assert theirs[parameter.name].kind == parameter.kind, (name, parameter.name)
            assert theirs[parameter.name].default == parameter.default, (name, parameter.name)


def test_backfill_options_are_those_of_the_store():
    for spec in specs():
        parameters = inspect.signature(spec.store_class().backfill).parameters
        assert spec.backfill_options == {"into", "alias", "leave_out"} & parameters.keys()


def test_errors_and_version_are_at_the_top():
    from importlib.metadata import version

    from muvera_adapters import MuveraError as Error

    assert Error is MuveraError
    assert muvera_adapters.__version__ == version("muvera-adapters")
    code = "import sys, muvera_adapters; print([m for m in ('numpy', 'typer', 'numba') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
