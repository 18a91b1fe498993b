import json

import numpy as np
import pytest

from jointiq.coding import shipped
from jointiq.coding.export import write_export
from jointiq.coding.fingerprint import fingerprint
from jointiq.coding.image_codec import decode_image, encode_image
from jointiq.errors import ConfigError, ModelError
from tests.shipped_folder import make_folder


@pytest.fixture
def folder(living, tmp_path, monkeypatch):
    monkeypatch.setattr(shipped, "WEIGHTS", tmp_path / "weights")
    return make_folder(tmp_path / "weights", {"q3": living(seed=1), "q1": living()})


def test_by_name(folder, living, picture):
    assert [model.name for model in shipped.shipped_models()] == ["q3", "q1"]
    image = picture(30, 40)
    for name, seed in (("q1", 0), ("q3", 1), (None, 1)):
        model = shipped.load_shipped(shipped.of_name(name))
        assert fingerprint(model) == fingerprint(living(seed=seed))
        data = encode_image(model, image).data
        assert np.array_equal(decode_image(living(seed=seed), data).image, decode_image(model, data).image)


def test_no_such_name(folder):
    with pytest.raises(ConfigError, match="model='q2' is not allowed; allowed: one of q3, q1"):
        shipped.of_name("q2")


def test_by_fingerprint(folder, living):
    identity = fingerprint(living(seed=1))
    assert shipped.of_fingerprint(identity[:4]).name == shipped.of_fingerprint(identity).name == "q3"
    assert shipped.of_fingerprint(bytes(4)) is None


def test_nothing_shipped(tmp_path, monkeypatch):
    monkeypatch.setattr(shipped, "WEIGHTS", tmp_path / "nowhere")
    assert shipped.shipped_models() == ()
    assert shipped.of_fingerprint(bytes(4)) is None
    for name in (None, "q2"):
        with pytest.raises(ModelError, match="no trained models are shipped.*--checkpoint"):
            shipped.of_name(name)


@pytest.mark.parametrize(
    "text",
    ["", "[]", '{"format": "x", "version": 2, "models": []}', '{"format": "jiq-models", "version": 1, "models": []}'],
)
def test_damaged_index(folder, text):
    (folder / "index.json").write_text(text)
    with pytest.raises(ModelError, match=r"index\.json is damaged; fetch it again"):
        shipped.shipped_models()


def test_damaged_weights(folder):
    path = folder / "q1.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(ModelError, match=r"q1\.safetensors is damaged.*git checkout"):
        shipped.load_shipped(shipped.of_name("q1"))
    path.unlink()
    with pytest.raises(ModelError, match=r"q1\.safetensors: No such file.*git checkout"):
        shipped.load_shipped(shipped.of_name("q1"))
    shipped.load_shipped(shipped.of_name("q3"))


def test_a_file_outside_the_folder_is_never_opened(folder, living):
    write_export(living(seed=2), folder.parent / "other.safetensors")
    index = json.loads((folder / "index.json").read_text())
    index["models"][0]["file"] = "../other.safetensors"
    (folder / "index.json").write_text(json.dumps(index))
    assert shipped.of_name("q3").path == folder / "other.safetensors"


def test_an_index_with_the_fingerprint_of_another_model(folder, living):
    index = json.loads((folder / "index.json").read_text())
    index["models"][0]["fingerprint"] = fingerprint(living(seed=2)).hex()
    (folder / "index.json").write_text(json.dumps(index))
    with pytest.raises(ModelError, match="another model than index.json says"):
        shipped.load_shipped(shipped.of_name("q3"))
