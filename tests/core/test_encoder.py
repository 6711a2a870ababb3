import json
import pickle

import numpy as np
import pytest

from muvera_core import FDEConfig, FDEEncoder, encoder_from_dict, load_encoder
from tests.drawn import gaussian


@pytest.fixture(params=["plain", "fitted", "fastembed"])
def encoder(request):
    if request.param == "fastembed":
        return FDEEncoder(FDEConfig.fastembed(20, r_reps=3))
    config = FDEConfig(20, r_reps=3, d_proj=6)
    return FDEEncoder(config) if request.param == "plain" else FDEEncoder.fit(config, gaussian(0, 500, 20) + 0.3)


def test_json_gives_back_the_same_encoder(encoder):
    again = encoder_from_dict(json.loads(json.dumps(encoder.to_dict())))
    tokens = gaussian(1, 9, 20)
    assert again.fingerprint == encoder.fingerprint
    np.testing.assert_array_equal(again.encode_documents([tokens]), encoder.encode_documents([tokens]))


def test_file_gives_back_the_same_encoder(encoder, tmp_path):
    path = tmp_path / "encoder.npz"
    encoder.save(path)
    assert [p.name for p in tmp_path.iterdir()] == ["encoder.npz"]
    for again in (load_encoder(path), FDEEncoder.load(str(path))):
        assert again.to_dict() == encoder.to_dict()
        np.testing.assert_array_equal(
            again.encode_queries([gaussian(1, 9, 20)]), encoder.encode_queries([gaussian(1, 9, 20)])
        )


def test_saving_again_replaces(encoder, tmp_path):
    path = tmp_path / "encoder.npz"
    FDEEncoder(FDEConfig(8, d_proj=2)).save(path)
    encoder.save(path)
    assert load_encoder(path).fingerprint == encoder.fingerprint


def test_pickles_for_worker_processes(encoder):
    again = pickle.loads(pickle.dumps(encoder))
    assert again.fingerprint == encoder.fingerprint


def test_a_changed_description_is_refused(encoder):
    content = encoder.to_dict()
    content["config"] = {**content["config"], "seed": 7}
    with pytest.raises(ValueError, match="the description was changed"):
        encoder_from_dict(content)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"type": "other"}, "unknown encoder type 'other'; this version knows fde"),
        ({"type": ["fde"]}, "unknown encoder type"),
        ({"config": {"dim": "20"}}, "type 'fde' is damaged: dim must be an integer"),
        ({"mean": {}}, "type 'fde' is damaged"),
        ({"config": None}, "has no config"),
        ({"config": {"dim": 20, "new": 1}}, "unknown keys new"),
        ({"mean": [1.0, 2.0]}, "20 finite numbers"),
        ({"mean": [float("nan")] * 20}, "20 finite numbers"),
    ],
)
def test_damaged_descriptions(encoder, change, message):
    with pytest.raises(ValueError, match=message):
        encoder_from_dict({**encoder.to_dict(), **change})


@pytest.mark.parametrize("content", [None, "fde", 5, [{}]])
def test_what_is_no_description_is_refused(content):
    with pytest.raises(ValueError, match=f"must be what to_dict.. gives, got a {type(content).__name__}"):
        encoder_from_dict(content)


class _Evil:
    def __reduce__(self):
        return print, ("executed",)


def test_files_that_are_no_encoder(tmp_path, capsys):
    with pytest.raises(FileNotFoundError):
        load_encoder(tmp_path / "missing.npz")
    path = tmp_path / "encoder.npz"
    FDEEncoder(FDEConfig(8, d_proj=2)).save(path)
    whole = path.read_bytes()
    damaged = {
        "empty": b"",
        "text": b"hello",
        "cut": whole[: len(whole) // 2],
        "pickle": pickle.dumps(_Evil()),
    }
    for data in damaged.values():
        path.write_bytes(data)
        with pytest.raises(ValueError, match="is not a saved encoder"):
            load_encoder(path)
    np.savez(path, encoder=np.array([_Evil()], dtype=object))
    with pytest.raises(ValueError, match="is not a saved encoder"):
        load_encoder(path)
    np.savez(path, other=np.zeros(3))
    with pytest.raises(ValueError, match="is not a saved encoder"):
        load_encoder(path)
    assert capsys.readouterr().out == ""
