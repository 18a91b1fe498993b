import math
import pickle

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from jointiq.coding import export
from jointiq.coding.export import write_export
from jointiq.coding.image_codec import decode_image, encode_image
from jointiq.coding.load import load_model
from jointiq.errors import ModelError, UserError
from jointiq.models import build_model


def save_checkpoint(model, path, **changes):
    """What a training run of src.train leaves, as far as it concerns the network."""
    state = {f"net.{name}": value for name, value in model.state_dict().items()}
    content = {"model_config": model.config, "state_dict": state, "lmbda": 0.06, **changes}
    torch.save({key: value for key, value in content.items() if value is not None}, path)
    return path


def test_checkpoint(living, latents, tmp_path):
    model = living()
    loaded = load_model(save_checkpoint(model, tmp_path / "last.ckpt"))
    assert not loaded.training and loaded.config == model.config
    for name, value in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], value)
    y_hat, z_hat = latents(model)
    assert loaded.integers.encode_y(y_hat, z_hat) == model.integers.encode_y(y_hat, z_hat)


def test_the_folder_of_a_run(living, tmp_path):
    (tmp_path / "checkpoints").mkdir()
    model = living()
    save_checkpoint(model, tmp_path / "checkpoints" / "last.ckpt")
    assert load_model(tmp_path).config == model.config
    with pytest.raises(UserError, match=r"nothing: no folder of a run, which has checkpoints/last\.ckpt"):
        (tmp_path / "nothing").mkdir()
        load_model(tmp_path / "nothing")


def test_other_keys_of_a_training_run_are_ignored(living, tmp_path):
    model = living()
    state = {f"net.{name}": value for name, value in model.state_dict().items()} | {"loss.weight": torch.ones(3)}
    load_model(save_checkpoint(model, tmp_path / "last.ckpt", state_dict=state, optimizer_states=[{"step": 3}]))


def test_missing_file(tmp_path):
    with pytest.raises(UserError, match="no such checkpoint"):
        load_model(tmp_path / "nothing.ckpt")


class Evil:
    def __reduce__(self):
        return (print, ("executed",))


@pytest.mark.parametrize(
    "content", [b"", b"hello", b"PK\x03\x04" + bytes(100), pickle.dumps({"a": 1}), pickle.dumps(Evil())]
)
def test_files_that_are_no_checkpoints(content, tmp_path, capsys):
    for name in ("a.ckpt", "a.safetensors"):
        path = tmp_path / name
        path.write_bytes(content)
        with pytest.raises(UserError, match="a.ckpt|a.safetensors"):
            load_model(path)
    assert "executed" not in capsys.readouterr().out


def test_pickled_objects_are_not_executed(living, tmp_path, capsys):
    path = save_checkpoint(living(), tmp_path / "a.ckpt", callbacks=Evil())
    with pytest.raises(UserError):
        load_model(path)
    assert "executed" not in capsys.readouterr().out


@pytest.mark.parametrize(
    "changes",
    [
        {"model_config": None},
        {"state_dict": None},
        {"state_dict": {}},
        {"state_dict": [1, 2]},
        {"model_config": {"name": "jointiq", "N": 4, "M": 4}},
        {"model_config": {"name": "other"}},
        {"model_config": "jointiq"},
        {"model_config": {"name": "jointiq", "N": 8, "M": 10, "min_known": 8, "scan": "raster"}},
    ],
)
def test_checkpoints_that_do_not_fit(living, tmp_path, changes):
    path = save_checkpoint(living(), tmp_path / "a.ckpt", **changes)
    with pytest.raises(UserError, match="a.ckpt"):
        load_model(path)


def test_export_is_recognised_by_its_suffix(living, tmp_path):
    model = living()
    write_export(model, tmp_path / "a.safetensors")
    assert load_model(tmp_path / "a.safetensors").config == model.config


# --- weights and integers that no file of ours holds ------------------------------------------------------------------


def rewrite(source, target, change):
    """The export ``source`` with its tensors changed and a checksum that fits them."""
    with safe_open(source, "pt") as file:
        tensors, metadata = {name: file.get_tensor(name) for name in file.keys()}, file.metadata()  # noqa: SIM118
    change(tensors)
    metadata["checksum"] = export._checksum(tensors)
    save_file(tensors, target, metadata)
    return target


def put(tensor, index, value):
    tensor[index] = value
    return tensor


INTEGERS = {
    "context weight 0": ("global_context.weights", lambda one: one * 0),
    "context weight too large": ("global_context.weights", lambda one: put(one, (0, 0), (1 << 16) + 1)),
    "context weight below 0": ("global_context.weights", lambda one: put(one, (0, 0), -5)),
    "context weight that is never known": ("global_context.weights", lambda one: put(one, (0, 14), 1)),
    "context weights of another type": ("global_context.weights", lambda one: one.long()),
    "shift 31": ("estimator.hidden.shift", lambda one: put(one, 0, 31)),
    "shift of another type": ("estimator.hidden.shift", lambda one: one.int()),
    "one shift for all": ("estimator.hidden.shift", lambda one: one[:1].clone()),
    "fraction bits": ("estimator.hidden.fraction_bits", lambda one: one.fill_(6)),
    "fraction bits of the transform": ("global_context.transform.fraction_bits", lambda one: one.fill_(12)),
    "two fraction bits": ("estimator.hidden.fraction_bits", lambda one: one.repeat(2)),
    "weight too large": ("h_s.conv.weight", lambda one: put(one, (0, 0), (1 << 13) + 1)),
    "weights of another type": ("h_s.conv.weight", lambda one: one.int()),
    "bias of another type": ("h_s.conv.bias", lambda one: one.int()),
    "bias too large": ("h_s.conv.bias", lambda one: put(one, 0, 1 << 52)),
    "one bias for all": ("h_s.conv.bias", lambda one: one[:1].clone()),
    "log sigmas of another type": ("z_prior.log_sigma", lambda one: one.float()),
    "one log sigma for all": ("z_prior.log_sigma", lambda one: one[:1].clone()),
    "a name that there is not": ("h_s.conv.extra", None),
}


@pytest.mark.parametrize("case", INTEGERS)
def test_integers_outside_of_the_format(living, tmp_path, case):
    name, change = INTEGERS[case]

    def damage(tensors):
        if change is None:
            tensors[f"exact.{name}"] = torch.zeros(1, dtype=torch.uint8)
        else:
            tensors[f"exact.{name}"] = change(tensors[f"exact.{name}"])

    write_export(living(), tmp_path / "a.safetensors")
    load_model(rewrite(tmp_path / "a.safetensors", tmp_path / "same.safetensors", lambda tensors: None))
    with pytest.raises(UserError, match="b.safetensors: "):
        load_model(rewrite(tmp_path / "a.safetensors", tmp_path / "b.safetensors", damage))


def test_a_cumulative_that_falls(tmp_path):
    model = build_model({"name": "balle2017", "N": 4}).eval()
    write_export(model, tmp_path / "a.safetensors")
    load_model(tmp_path / "a.safetensors")
    for change in (lambda one: one.flip(1), lambda one: one - 1, lambda one: one[:3], lambda one: one.long()):

        def damage(tensors, change=change):
            tensors["exact.cdf"] = change(tensors["exact.cdf"]).contiguous()

        with pytest.raises(UserError, match="b.safetensors: "):
            load_model(rewrite(tmp_path / "a.safetensors", tmp_path / "b.safetensors", damage))


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_weights_that_are_not_finite(living, tmp_path, value):
    model = living()
    with torch.no_grad():
        model.g_s.deconvs[0].weight[0, 0, 0, 0] = value
    save_checkpoint(model, tmp_path / "a.ckpt")
    write_export_of = rewrite_weight(living(), tmp_path, value)
    for path in (tmp_path / "a.ckpt", write_export_of):
        with pytest.raises(ModelError, match=rf"{path.name}: its weights g_s\.\S+ are not finite"):
            load_model(path)


def rewrite_weight(model, folder, value):
    write_export(model, folder / "good.safetensors")

    def damage(tensors):
        tensors["g_s.deconvs.0.weight"][0, 0, 0, 0] = value

    return rewrite(folder / "good.safetensors", folder / "b.safetensors", damage)


def test_a_model_that_diverged_in_memory_makes_no_black_picture(living, picture):
    model = living()
    data = encode_image(model, picture(40, 50)).data
    with torch.no_grad():
        model.g_s.deconvs[3].bias[0] = math.nan
    with pytest.raises(ModelError, match="no finite picture"):
        decode_image(model, data)
