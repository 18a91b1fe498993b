import pickle

import pytest
import torch

from jointiq.coding.export import write_export
from jointiq.coding.load import load_model
from jointiq.errors import UserError


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
    assert loaded.exact.encode_y(y_hat, z_hat) == model.exact.encode_y(y_hat, z_hat)


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
