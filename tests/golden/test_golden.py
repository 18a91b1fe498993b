"""Files of this format version decode to the same latents for ever (tests/golden/make.py made them)."""

import hashlib
import json
import lzma
from pathlib import Path

import numpy as np
import pytest
import torch

from jointiq.bitstream.container import VERSION_WITH_QUALITY, Container
from jointiq.coding.fingerprint import fingerprint
from jointiq.coding.image_codec import decode_image, decode_latents, to_image
from jointiq.coding.load import load_model
from tests.golden import reference

FOLDER = Path(__file__).parent
EXPECTED = json.loads((FOLDER / "expected.json").read_text())
FILES = EXPECTED["files"]


def digest(latent):
    return hashlib.sha256(latent.numpy().astype("<i4").tobytes()).hexdigest()


@pytest.fixture(scope="module")
def model_of(tmp_path_factory):
    """``model_of(name)``: a golden model."""
    folder = tmp_path_factory.mktemp("golden")

    def load(name):
        path = folder / f"{name}.safetensors"
        path.write_bytes(lzma.decompress((FOLDER / f"{name}.safetensors.xz").read_bytes()))
        return load_model(path)

    return load


def test_the_set_is_complete():
    assert EXPECTED["format_version"] == VERSION_WITH_QUALITY
    assert {path.name for path in FOLDER.glob("*.jiq")} == set(FILES) and len(FILES) == 12
    assert sum(path.stat().st_size for path in FOLDER.iterdir() if path.is_file()) < 100_000 * 4


@pytest.mark.parametrize("name", FILES)
def test_latents(model_of, name):
    expected = FILES[name]
    data = (FOLDER / name).read_bytes()
    assert hashlib.sha256(data).hexdigest() == expected["file"]
    model = model_of(expected["model"])
    latents, size = decode_latents(model, data)
    y_hat, z_hat = latents["y"], latents["z"]
    assert list(size) == expected["size"]
    assert y_hat[:, 0, 0].tolist() == expected["y_hat_first"]
    assert (digest(y_hat), digest(z_hat)) == (expected["y_hat"], expected["z_hat"])
    assert fingerprint(model).hex() == expected["fingerprint"]


@pytest.mark.parametrize("name", ["full", "plain", "quarters", "rates"])
def test_the_latents_themselves_and_their_bytes(model_of, name):
    """Value by value, so that a difference shows where it is; and coding them again gives the same segments."""
    model = model_of(name)
    data = (FOLDER / f"{name}-141x90.jiq").read_bytes()
    stored = np.load(FOLDER / f"{name}.npz", allow_pickle=False)
    latents, _ = decode_latents(model, data)
    y_hat, z_hat = latents["y"], latents["z"]
    np.testing.assert_array_equal(z_hat.numpy(), stored["z_hat"])
    np.testing.assert_array_equal(y_hat.numpy(), stored["y_hat"])
    assert (abs(stored["y_hat"]) > 1).mean() > 0.05
    container = Container.unpack(data)
    coder = model.at_tenths(container.tenths).coder
    assert coder.encode_z(z_hat) == container.z
    assert coder.encode_y(y_hat, z_hat) == container.y


def test_headers_are_written_as_they_are_read():

    for name, expected in FILES.items():
        container = Container.unpack((FOLDER / name).read_bytes())
        assert container.tenths == (round(expected["quality"] * 10) if "quality" in expected else None)
        assert hashlib.sha256(container.pack()).hexdigest() == expected["file"]


def test_the_picture_is_near_enough_for_any_machine(model_of):
    """g_s and the enhancer are float: at most one level between machines; here, between two ways to run them."""
    model = model_of("full")
    decoded = decode_image(model, (FOLDER / "full-141x90.jiq").read_bytes())
    with torch.inference_mode():
        double, _ = model.double().reconstruct(decoded.latents["y"][None].double(), (90, 141))
    difference = np.abs(decoded.image.astype(int) - to_image(double))
    assert difference.max() <= 1 and np.square(difference).mean() <= 255**2 / 10**6


@pytest.mark.parametrize("name", FILES)
def test_the_written_format(name, tmp_path):
    """A decoder that shares no code with ours, written from docs/format.md, finds the same latents."""
    path = tmp_path / "model.safetensors"
    path.write_bytes(lzma.decompress((FOLDER / f"{FILES[name]['model']}.safetensors.xz").read_bytes()))
    y_hat, z_hat = reference.decode(reference.Model(path), (FOLDER / name).read_bytes())
    assert digest(torch.from_numpy(y_hat)) == FILES[name]["y_hat"]
    assert digest(torch.from_numpy(z_hat)) == FILES[name]["z_hat"]


def test_the_example_in_the_document():
    document = (FOLDER.parents[1] / "docs" / "format.md").read_text()
    example = document[document.index("## An example") :]
    data = (FOLDER / "full-65x17.jiq").read_bytes()
    for part in (data[:3], data[4:8], data[13:17], data[17:22], data[29:33], data[-4:]):
        assert part.hex(" ").upper() in example
