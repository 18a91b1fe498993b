"""Checkpoints in CompressAI's layout: written, opened without pickle, and loaded by both sides."""

import json
import sys

import lightning
import pytest
import torch
from compressai.zoo import load_state_dict
from torch.utils.data import DataLoader

from jointiq.coding.export import write_export
from jointiq.coding.fingerprint import fingerprint
from jointiq.coding.image_codec import encode_image, to_tensor
from jointiq.coding.load import load_model
from jointiq.commands import export
from jointiq.errors import UserError
from jointiq.interop.pth_tar import write_pth_tar
from jointiq.models.jointiq import JointIQNet
from jointiq.training.callbacks.checkpoint_io import AtomicCheckpointIO
from jointiq.training.modules.compression import CompressionModule
from jointiq.training.modules.losses import RateDistortionLoss
from jointiq.training.schedules import constant

GRDN = {"name": "grdn", "grdbs": 1, "rdbs": 1, "convs": 1, "kernels": 4}
VARIANTS = [
    {"enhancer": GRDN},
    {"G": 1, "scan": "raster", "K": 3, "min_known": 20},
    {"N": 6, "M": 14, "G": 2, "global_context": False, "mprm_width": 1},
    {"N": 12, "M": 9, "global_context": False, "mprm": False, "hyper_exp": True, "hyper_abs": True},
]


@pytest.mark.parametrize("variant", VARIANTS, ids=str)
def test_both_sides_load_the_same_model(living, picture, tmp_path, variant):
    model, image = living(**variant), picture(70, 61)
    identity = write_pth_tar(model, tmp_path / "m.pth.tar")
    state = torch.load(tmp_path / "m.pth.tar", map_location="cpu", weights_only=True)
    ours, theirs = load_model(tmp_path / "m.pth.tar"), JointIQNet.from_state_dict(load_state_dict(state)).eval()
    theirs.update(force=True)
    assert identity == fingerprint(model) == fingerprint(ours) == fingerprint(theirs)
    assert ours.config == theirs.config == model.config
    assert (ours.enhancer is None) == (theirs.enhancer is None) == ("enhancer" not in variant)
    assert ours.entropy_model.scan.name == theirs.entropy_model.scan.name == variant.get("scan", "wavefront")
    strings = model.compress(to_tensor(image))["strings"]
    assert theirs.compress(to_tensor(image))["strings"] == strings
    assert encode_image(ours, image).payload_bytes > 0


def test_the_file_is_a_bare_state_dict_of_plain_tensors(living, tmp_path):
    model = living(enhancer=GRDN).to(memory_format=torch.channels_last)
    write_pth_tar(model, tmp_path / "m.pth.tar")
    state = torch.load(tmp_path / "m.pth.tar", weights_only=True)
    assert type(state) is dict and state.keys() == model.state_dict().keys()
    assert all(value.is_contiguous() and value.device.type == "cpu" for value in state.values())
    assert json.loads(bytes(state["_extra_state"].tolist())) == model.config


def test_the_layout_of_compressais_training_example(living, tmp_path):
    model = living()
    content = {"epoch": 3, "state_dict": model.state_dict(), "loss": 1.5, "optimizer": {"state": {}}}
    torch.save(content, tmp_path / "checkpoint_best_loss.pth.tar")
    assert fingerprint(load_model(tmp_path / "checkpoint_best_loss.pth.tar")) == fingerprint(model)


def config_bytes(**changes):
    config = {"name": "jointiq", "N": 8, "M": 10, "min_known": 8, **changes}
    return torch.tensor(list(json.dumps(config).encode()), dtype=torch.uint8)


DAMAGE = {
    "a weight is missing": lambda s: s.pop("g_s.deconvs.0.weight"),
    "no configuration": lambda s: s.pop("_extra_state"),
    "a configuration that is no JSON": lambda s: s.update(_extra_state=torch.tensor([123, 34], dtype=torch.uint8)),
    "a configuration that is no bytes": lambda s: s.update(_extra_state=torch.tensor([0.5])),
    "a configuration that is no tensor": lambda s: s.update(_extra_state="jointiq"),
    "another model": lambda s: s.update(_extra_state=config_bytes(name="mbt2018")),
    "another size": lambda s: s.update(_extra_state=config_bytes(M=11)),
    "an impossible model": lambda s: s.update(_extra_state=config_bytes(mprm=False)),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE.keys())
def test_damaged_files(living, tmp_path, damage):
    state = dict(living().state_dict())
    damage(state)
    torch.save(state, tmp_path / "m.pth.tar")
    with pytest.raises(UserError, match="m.pth.tar"):
        load_model(tmp_path / "m.pth.tar")


@pytest.mark.parametrize("content", [b"", b"text", b"JxVc", b"PK\x03\x04", b"\x80\x02}"])
def test_files_of_other_kinds(tmp_path, content):
    (tmp_path / "m.pth.tar").write_bytes(content)
    with pytest.raises(UserError, match="m.pth.tar is not a checkpoint"):
        load_model(tmp_path / "m.pth.tar")


def test_from_an_export(living, latents, tmp_path):
    """The stored integers are not in the file, only the float weights they stand for: the rate stays."""
    write_export(living(), tmp_path / "m.safetensors")
    model = load_model(tmp_path / "m.safetensors")
    write_pth_tar(model, tmp_path / "m.pth.tar")
    again = load_model(tmp_path / "m.pth.tar")
    y_hat, z_hat = latents(model)
    before, after = (len(m.integers.encode_y(y_hat, z_hat)) for m in (model, again))
    assert after == pytest.approx(before, rel=0.002)


# --- command line -----------------------------------------------------------------------------------------------------


def run(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["export", *map(str, arguments)])
    export.main()


def test_command_line(monkeypatch, capsys, living, tmp_path):
    model = living()
    state = {f"net.{name}": value for name, value in model.state_dict().items()}
    torch.save({"model_config": model.config, "state_dict": state}, tmp_path / "last.ckpt")
    run(monkeypatch, tmp_path / "last.ckpt", tmp_path / "out" / "m.pth.tar")
    assert fingerprint(model)[:4].hex() in capsys.readouterr().out
    assert fingerprint(load_model(tmp_path / "out" / "m.pth.tar")) == fingerprint(model)
    # The two formats lead to one another.
    run(monkeypatch, tmp_path / "out" / "m.pth.tar", tmp_path / "m.safetensors")
    assert fingerprint(load_model(tmp_path / "m.safetensors")) == fingerprint(model)
    with pytest.raises(UserError, match="--half is not allowed.*safetensors"):
        run(monkeypatch, tmp_path / "last.ckpt", tmp_path / "half.pth.tar", "--half")
    with pytest.raises(UserError, match="must end in .safetensors or .pth.tar"):
        run(monkeypatch, tmp_path / "last.ckpt", tmp_path / "m.tar")
    assert not (tmp_path / "half.pth.tar").exists() and not (tmp_path / "m.tar").exists()


# --- training ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def trained(living, picture, tmp_path):
    """A LightningModule that was trained, prepared for coding, and saved; and its checkpoint."""
    module = CompressionModule(living().train(), RateDistortionLoss(0.1), constant(), lr=1e-4)
    trainer = lightning.Trainer(
        max_steps=1, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, plugins=[AtomicCheckpointIO()],
    )  # fmt: skip
    patch = torch.from_numpy(picture(128, 128)).permute(2, 0, 1).contiguous()
    trainer.fit(module, DataLoader([patch], batch_size=1))
    module.net.eval()
    assert module.net.update(force=True)
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    return module, tmp_path / "last.ckpt"


@pytest.mark.filterwarnings("ignore:.*val_dataloader.*", "ignore:.*LeafSpec.*")
def test_a_lightning_checkpoint_saved_after_update_reloads(trained, living):
    """CompressAI's own models fail here: their tables change size with `update`. Ours are not in the state dict."""
    module, path = trained
    assert fingerprint(module.net) != fingerprint(living())
    assert fingerprint(load_model(path)) == fingerprint(module.net)
    fresh = CompressionModule(living(seed=1), RateDistortionLoss(0.1), constant(), lr=1e-4)
    fresh.load_state_dict(torch.load(path, weights_only=True)["state_dict"])
    assert fingerprint(fresh.net.eval()) == fingerprint(module.net)


@pytest.mark.filterwarnings("ignore:.*val_dataloader.*", "ignore:.*LeafSpec.*")
def test_weights_loaded_through_a_parent_replace_the_integers(trained, living):
    module, path = trained
    other = CompressionModule(living(seed=1), RateDistortionLoss(0.1), constant(), lr=1e-4)
    other.net.update()
    other.load_state_dict(torch.load(path, weights_only=True)["state_dict"])
    assert fingerprint(other.net.eval()) == fingerprint(module.net)
