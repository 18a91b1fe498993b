"""``jointiq.load``, ``encode`` and ``decode``: what a notebook calls."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import jointiq
from jointiq.coding import api, shipped
from jointiq.coding.export import write_export
from jointiq.coding.image_codec import decode_image, encode_image
from jointiq.coding.refine import refine_image
from jointiq.errors import BitstreamError, ConfigError, DataError, UserError
from jointiq.models.objective import Objective
from tests.shipped_folder import make_folder

ROOT = Path(__file__).parents[2]


@pytest.fixture
def weights(living, monkeypatch, tmp_path):
    """A shipped folder of two models."""
    monkeypatch.setattr(shipped, "WEIGHTS", tmp_path / "weights")
    monkeypatch.setattr(api, "_decoders", shipped.Decoders())
    return make_folder(tmp_path / "weights", {"q1": living(seed=1), "q2": living(seed=2)})


@pytest.mark.parametrize("kind", [Image.fromarray, np.array], ids=["PIL", "array"])
def test_there_and_back(weights, living, picture, kind):
    image = picture(50, 77)
    data = jointiq.encode(jointiq.load("q2"), kind(image))
    assert data == encode_image(living(seed=2), image).data
    decoded = jointiq.decode(data)
    assert isinstance(decoded, Image.Image)
    assert np.array_equal(np.asarray(decoded), decode_image(living(seed=2), data).image)


def test_a_model_of_ones_own(weights, living, picture, tmp_path):
    write_export(living(seed=5), tmp_path / "mine.safetensors")
    model = jointiq.load(tmp_path / "mine.safetensors")
    data = jointiq.encode(model, picture(33, 29))
    with pytest.raises(BitstreamError, match=r"none of the shipped ones.*decode\(data, model\)"):
        jointiq.decode(data)
    assert jointiq.decode(data, model).size == (29, 33)
    with pytest.raises(BitstreamError, match="was written by the model"):
        jointiq.decode(data, jointiq.load("q1"))


def test_each_shipped_model_is_loaded_once(weights, picture, monkeypatch):
    loaded = []
    load = shipped.load_shipped
    monkeypatch.setattr(shipped, "load_shipped", lambda *given: loaded.append(given[0].name) or load(*given))
    data = [jointiq.encode(jointiq.load(name), picture(20, 20)) for name in ("q1", "q2")]
    loaded.clear()
    for one in (*data, *data):
        jointiq.decode(one)
    assert loaded == ["q1", "q2"]


def test_a_pil_image_is_treated_as_one_from_a_file(weights, picture):
    model = jointiq.load("q1")
    grey = Image.fromarray(picture(20, 30)).convert("L")
    assert jointiq.encode(model, grey) == jointiq.encode(model, np.array(grey.convert("RGB")))
    turned = Image.fromarray(picture(20, 30))
    turned.getexif()[0x0112] = 6
    assert jointiq.decode(jointiq.encode(model, turned)).size == (20, 30)
    with pytest.raises(DataError, match="the image is transparent"):
        jointiq.encode(model, Image.new("RGBA", (20, 20)))
    with pytest.raises(DataError, match="the image has more than 8 bits"):
        jointiq.encode(model, Image.fromarray(np.zeros((20, 20), np.uint16)))


@pytest.mark.parametrize(
    "array",
    [np.zeros((8, 8, 3)), np.zeros((8, 8), np.uint8), np.zeros((3, 8, 8), np.uint8), np.zeros((0, 8, 3), np.uint8)],
    ids=["float", "grey", "channels first", "empty"],
)
def test_arrays_that_are_no_images(weights, array):
    with pytest.raises(DataError, match=r"allowed: uint8, \(height, width, 3\)"):
        jointiq.encode(jointiq.load("q1"), array)


def test_refined(living, picture):
    model, image = living(), picture(60, 70)
    model.objective = Objective(0.3)
    data = jointiq.encode(model, image, refine=12)
    assert data == refine_image(model, image, 12).best.encoded.data == jointiq.encode(model, image, refine=np.int64(12))
    assert jointiq.decode(data, model).size == (70, 60)
    assert jointiq.encode(model, Image.fromarray(image), refine=0) == encode_image(model, image).data


def test_no_such_model(weights):
    with pytest.raises(UserError, match=r"q9: no such checkpoint, and no shipped model \(q1, q2\)"):
        jointiq.load("q9")


def test_paths_in_the_place_of_what_they_hold(weights):
    with pytest.raises(DataError, match=r"'a.png' is a path; allowed: .*PIL.Image.open\('a.png'\)"):
        jointiq.encode(jointiq.load("q1"), "a.png")
    with pytest.raises(DataError, match=r"'a.jiq' is a path; allowed: .*\('a.jiq'\).read_bytes\(\)"):
        jointiq.decode(Path("a.jiq"))


def test_other_kinds_of_bytes_and_names_for_models(weights, picture):
    data = jointiq.encode(jointiq.load("q1"), picture(20, 20))
    for kind in (bytearray, memoryview):
        assert jointiq.decode(kind(data)) == jointiq.decode(data)
    with pytest.raises(DataError, match=r"'q1' is a name; allowed: .*jointiq.load\('q1'\)"):
        jointiq.decode(data, "q1")
    with pytest.raises(ConfigError, match=r"device='cuda:99' is not allowed; allowed: one of auto, cpu"):
        jointiq.load("q1", "cuda:99")


def test_8_bit_samples_are_no_batch(weights):
    with pytest.raises(DataError, match=r"x has values up to 255; allowed: \[0, 1\]"):
        jointiq.load("q1").compress(torch.full((1, 3, 20, 20), 255.0))


@pytest.mark.parametrize("shape", [(3, 20, 20), (1, 4, 20, 20), (1, 20, 20, 3)])
def test_what_is_no_batch(weights, shape):
    model = jointiq.load("q1")
    for use in (model, model.compress):
        with pytest.raises(DataError, match=r"allowed: \(B, 3, H, W\)"):
            use(torch.zeros(shape))


def test_compressai_contract(weights, picture):
    model = jointiq.load("q1")
    x = torch.from_numpy(picture(64, 64)).permute(2, 0, 1)[None] / 255
    with torch.no_grad():
        out = model(x)
    coded = model.compress(x)
    decoded = model.decompress(coded["strings"], coded["shape"])
    assert set(out["likelihoods"]) == {"y", "z"}
    assert torch.allclose(decoded["x_hat"], out["x_hat"].clamp(0, 1), atol=1e-4)


def test_the_import_is_light():
    program = (
        "import sys, jointiq; print('torch' in sys.modules, sorted(set(dir(jointiq)) & {'load', 'encode', 'decode'}))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "False ['decode', 'encode', 'load']\n"
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = jointiq.nothing


def test_the_import_is_silent():
    done = subprocess.run([sys.executable, "-c", "import jointiq; jointiq.load"], capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout + done.stderr == ""


@pytest.mark.slow
def test_the_page_of_examples(monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)
    text = (ROOT / "docs" / "python.md").read_text(encoding="utf-8")
    first, *blocks = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    names: dict[str, object] = {}
    for block in blocks:
        exec(block, names)
    exec(first, names)
    said = capsys.readouterr().out
    assert re.search(r"quality 30: \d+ bytes, 0\.\d+ bpp, PSNR [23]\d\.\d+ dB", said)
