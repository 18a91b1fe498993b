import json
import sys

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from jointiq.coding.export import read_metadata, write_export
from jointiq.coding.fingerprint import fingerprint
from jointiq.coding.image_codec import decode_image, encode_image, to_tensor
from jointiq.coding.load import load_model
from jointiq.commands import export
from jointiq.errors import UserError
from jointiq.models.base import bits

GRDN = {"name": "grdn", "grdbs": 1, "rdbs": 1, "convs": 1, "kernels": 4}
VARIANTS = [
    {"enhancer": GRDN},
    {"G": 1, "scan": "raster"},
    {"global_context": False},
    {"global_context": False, "mprm": False, "hyper_exp": True},
]


def tensors_of(path):
    with safe_open(path, "pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}, file.metadata()  # noqa: SIM118


@pytest.mark.parametrize("variant", VARIANTS, ids=str)
def test_same_model_same_files(living, picture, tmp_path, variant):
    model, image = living(**variant), picture(70, 61)
    identity = write_export(model, tmp_path / "m.safetensors", name="demo", lmbda="0.5")
    again = load_model(tmp_path / "m.safetensors")
    assert identity == fingerprint(model) == fingerprint(again)
    encoded = encode_image(model, image)
    assert encode_image(again, image).data == encoded.data
    assert np.array_equal(decode_image(again, encoded.data).image, decode_image(model, encoded.data).image)
    metadata = read_metadata(tmp_path / "m.safetensors")
    assert json.loads(metadata["config"]) == model.config
    assert metadata["name"] == "demo" and metadata["lmbda"] == "0.5"


def test_the_same_model_is_the_same_bytes(living, tmp_path):
    notes = {"name": "démo \n", "lmbda": "0.5", "training_data": "photos"}
    for number in range(4):
        write_export(living(), tmp_path / f"{number}.safetensors", **notes)
    written = {path.read_bytes() for path in tmp_path.iterdir()}
    assert len(written) == 1
    assert {**read_metadata(tmp_path / "0.safetensors"), **notes} == read_metadata(tmp_path / "0.safetensors")


@pytest.mark.parametrize("variant", VARIANTS, ids=str)
def test_float_weights_are_restored(living, latents, tmp_path, variant):
    model = living(**variant)
    write_export(model, tmp_path / "m.safetensors")
    again = load_model(tmp_path / "m.safetensors")
    y_hat, z_hat = (latent[None].float() for latent in latents(model))
    rounded = {"y": y_hat, "z": z_hat}
    with torch.inference_mode():
        before, after = model.log_likelihoods(rounded), again.log_likelihoods(rounded)
    for key in ("y", "z"):
        assert float(bits(after[key])) == pytest.approx(float(bits(before[key])), rel=0.003)


def test_export_of_an_export_is_the_same(living, tmp_path):
    first = write_export(living(), tmp_path / "a.safetensors")
    assert write_export(load_model(tmp_path / "a.safetensors"), tmp_path / "b.safetensors") == first
    one, other = tensors_of(tmp_path / "a.safetensors")[0], tensors_of(tmp_path / "b.safetensors")[0]
    assert one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_half(living, picture, tmp_path):
    model, image = living(), picture(64, 64)
    full = write_export(model, tmp_path / "full.safetensors")
    half = write_export(model, tmp_path / "half.safetensors", half=True)
    assert half != full
    assert fingerprint(load_model(tmp_path / "half.safetensors")) == half
    tensors, _ = tensors_of(tmp_path / "half.safetensors")
    assert tensors["g_a.convs.0.weight"].dtype == torch.float16
    assert tensors["g_a.convs.0.bias"].dtype == torch.float32
    assert tensors["exact.estimator.hidden.weight"].dtype == torch.int16
    # The entropy model is not touched: the same latents have the same bits.
    original, _ = tensors_of(tmp_path / "full.safetensors")
    assert all(torch.equal(tensors[name], original[name]) for name in tensors if name.startswith("exact."))
    small = load_model(tmp_path / "half.safetensors")
    decoded = decode_image(small, encode_image(small, image).data)
    with torch.inference_mode():
        reference = model(to_tensor(image))["x_hat"]
        assert (small(to_tensor(image))["x_hat"] - reference).abs().mean() < 0.05
    assert decoded.image.shape == image.shape


def test_what_is_inside(living, tmp_path):
    model = living()
    write_export(model, tmp_path / "m.safetensors")
    data = (tmp_path / "m.safetensors").read_bytes()
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    assert header["__metadata__"]["format"] == "jiq-model" and header["__metadata__"]["version"] == "1"
    names = set(header) - {"__metadata__"}
    assert {"tables.normal_cdf", "tables.exp", "tables.inverse_sigma", "tables.decision_probabilities"} <= names
    assert not any(name.startswith(("h_s.", "estimator.", "z_prior.", "global_context.")) for name in names)


def rewrite(path, change):
    tensors, metadata = tensors_of(path)
    change(tensors, metadata)
    save_file(tensors, path, metadata)


DAMAGE = {
    "an integer layer is missing": lambda t, m: t.pop("exact.h_s.conv.weight"),
    "a bias is missing": lambda t, m: t.pop("exact.estimator.hidden.bias"),
    "the prior is missing": lambda t, m: t.pop("exact.z_prior.log_sigma"),
    "a transform is missing": lambda t, m: t.pop("g_s.deconvs.0.weight"),
    "a wrong shape": lambda t, m: t.update({"g_s.deconvs.0.weight": torch.zeros(3, 3)}),
    "weights too large": lambda t, m: t.update(
        {"exact.estimator.hidden.bias": t["exact.estimator.hidden.bias"] + (1 << 60)}
    ),
    "another table": lambda t, m: t["tables.exp"].add_(1),
    "no table": lambda t, m: t.pop("tables.normal_cdf"),
    "no configuration": lambda t, m: m.pop("config"),
    "a configuration that is no JSON": lambda t, m: m.update(config="{"),
    "a configuration that is no mapping": lambda t, m: m.update(config="[3]"),
    "an unknown model": lambda t, m: m.update(config='{"name": "x"}'),
    "another version": lambda t, m: m.update(version="99"),
    "another format": lambda t, m: m.update(format="x"),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE.keys())
def test_damaged_export(living, tmp_path, damage):
    path = tmp_path / "m.safetensors"
    write_export(living(), path)
    rewrite(path, damage)
    with pytest.raises(UserError, match="m.safetensors"):
        load_model(path)


def test_truncated_export(living, tmp_path):
    path = tmp_path / "m.safetensors"
    write_export(living(), path)
    data = path.read_bytes()
    for length in (0, 5, 100, len(data) // 2, len(data) - 1):
        path.write_bytes(data[:length])
        with pytest.raises(UserError, match="m.safetensors"):
            load_model(path)


# --- command line -----------------------------------------------------------------------------------------------------


def run(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["export", *map(str, arguments)])
    export.main()


@pytest.fixture
def checkpoint(living, tmp_path):
    model = living()
    state = {f"net.{name}": value for name, value in model.state_dict().items()}
    torch.save({"model_config": model.config, "state_dict": state}, tmp_path / "last.ckpt")
    return tmp_path / "last.ckpt"


def test_command_line(monkeypatch, capsys, checkpoint, tmp_path, picture):
    run(monkeypatch, checkpoint, tmp_path / "out" / "m.safetensors")
    trained, exported = load_model(checkpoint), load_model(tmp_path / "out" / "m.safetensors")
    assert fingerprint(trained) == fingerprint(exported)
    assert fingerprint(trained)[:4].hex() in capsys.readouterr().out
    data = encode_image(trained, picture(30, 40)).data
    assert np.array_equal(decode_image(exported, data).image, decode_image(trained, data).image)
    run(monkeypatch, checkpoint, tmp_path / "half.safetensors", "--half")
    assert (tmp_path / "half.safetensors").stat().st_size < (tmp_path / "out" / "m.safetensors").stat().st_size


def test_wrong_arguments(monkeypatch, checkpoint, tmp_path):
    with pytest.raises(UserError, match="must end in .safetensors"):
        run(monkeypatch, checkpoint, tmp_path / "m.bin")
    with pytest.raises(UserError, match="no such checkpoint"):
        run(monkeypatch, tmp_path / "nothing.ckpt", tmp_path / "m.safetensors")
    assert not (tmp_path / "m.safetensors").exists() and not (tmp_path / "m.bin").exists()
