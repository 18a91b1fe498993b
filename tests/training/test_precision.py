"""What makes training fast: bf16 around float32 likelihoods, TF32, channels_last, fused Adam, pinning."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from jointiq.coding.image_codec import decode_image, encode_image
from jointiq.data.datamodule import ImageData
from jointiq.errors import ConfigError
from jointiq.models import build_model
from jointiq.runtime import tf32
from jointiq.training.assemble import set_training_layout
from jointiq.training.modules.compression import CompressionModule
from jointiq.training.modules.losses import RateDistortionLoss
from jointiq.training.run import fit
from jointiq.training.schedules import constant
from jointiq.training.validation import validate
from tests.training import tiny


def module() -> CompressionModule:
    torch.manual_seed(0)
    net = build_model({"name": "jointiq", "N": 8, "M": 8, "enhancer": None})
    return CompressionModule(net, RateDistortionLoss(0.1), constant(), lr=1e-3).train()


def test_under_bf16_likelihoods_global_context_and_loss_stay_in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    trained, x = module(), torch.rand(2, 3, 128, 128)
    seen: dict[str, torch.dtype] = {}

    def note(name: str) -> None:
        part = trained.net.get_submodule(name if name == "g_a" else f"entropy_model.{name}")
        part.register_forward_hook(lambda _module, _inputs, output: seen.update({name: output.dtype}))

    for name in ("g_a", "global_context", "z_prior"):
        note(name)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = trained.net(x)
        loss, _, _ = trained.training_loss(x, x, None)
    assert seen == {"g_a": torch.bfloat16, "global_context": torch.float32, "z_prior": torch.float32}
    assert {value.dtype for value in output["log_likelihoods"].values()} == {torch.float32}
    assert loss.dtype == torch.float32
    loss.backward()
    for name, parameter in trained.net.named_parameters():
        assert parameter.dtype == parameter.grad.dtype == torch.float32, name
        assert torch.isfinite(parameter.grad).all(), name


def test_bf16_changes_the_loss_by_rounding_only() -> None:
    trained, x = module(), torch.rand(2, 3, 128, 128)
    losses = []
    for enabled in (False, True):
        torch.manual_seed(1)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled):
            losses.append(trained.training_loss(x, x, None)[0].item())
    assert losses[1] == pytest.approx(losses[0], rel=0.01)


def tf32_is_on() -> bool:
    products, convolutions = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    assert products == convolutions
    return products


@pytest.mark.parametrize("allowed", [True, False])
def test_tf32_is_for_the_training_alone(allowed: bool, tmp_path: Path, picture: Any) -> None:
    """What was set before comes back, and files are coded without it."""
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    net = module().net.eval()
    seen: list[bool] = []
    net.g_a.register_forward_hook(lambda *_: seen.append(tf32_is_on()))
    net.g_s.register_forward_hook(lambda *_: seen.append(tf32_is_on()))
    # As much of a training as is looked at.
    strategy = SimpleNamespace(launcher=None)
    trainer = SimpleNamespace(loggers=[], strategy=strategy, fit=lambda *args, **options: net(torch.rand(1, 3, 64, 64)))
    training: Any = SimpleNamespace(
        trainer=trainer, module=None, data=None, first_step=0, stop=SimpleNamespace(stopped=True)
    )
    cfg = tiny.config("+experiment=jointiq", f"tf32={str(allowed).lower()}", f"paths.run_dir={tmp_path}")
    fit(cfg, training, None)
    assert seen == [allowed, allowed]
    with tf32(allowed):
        decode_image(net, encode_image(net, picture(64, 64), estimate=False).data)
        x = torch.rand(1, 3, 64, 64)
        net.decompress(**net.compress(x))
    assert seen[2:] == [False] * 4
    assert (torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32) == before


@pytest.mark.parametrize(
    ("wrong", "allowed"),
    [("trainer.precision=16-mixed", "one of 32-true, bf16-mixed"), ("trainer.precision=bf16-true", "32-true"),
     ("+trainer.gradient_clip_val=1", "optim.clip_norm"), ("tf32=high", "True, False")],
)  # fmt: skip
def test_arithmetic_that_is_not_allowed(wrong: str, allowed: str) -> None:
    with pytest.raises(ConfigError, match=allowed):
        validate(tiny.config("+experiment=jointiq", wrong))


def test_convolutions_are_channels_last() -> None:
    net = module().net
    for part in (net.g_a.convs, net.g_s.deconvs, net.entropy_model.h_a.convs):
        for layer in part:
            assert layer.weight.is_contiguous(memory_format=torch.channels_last)
    y = net.g_a(torch.rand(2, 3, 64, 64).to(memory_format=torch.channels_last))
    assert y.is_contiguous(memory_format=torch.channels_last)


def test_in_float32_on_a_cpu_they_train_in_planes() -> None:
    for device, precision, planes in (
        ("cpu", "32-true", True),
        ("cpu", "bf16-mixed", False),
        ("cuda", "32-true", False),
    ):
        net = module().net
        set_training_layout(net, torch.device(device), precision)
        assert net.g_a.convs[1].weight.is_contiguous() is planes


def test_adam_is_fused() -> None:
    assert module().configure_optimizers()["optimizer"].defaults["fused"]


def test_batches_are_pinned_on_a_gpu(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    tiny.write_images(tmp_path)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    data = ImageData(sorted((tmp_path / "train").glob("*.png")), [], batch_size=2, crop=32)
    data.setup("fit")
    loader = data.train_batches(steps=1)
    assert loader.pin_memory and loader.num_workers > 0 and loader.persistent_workers
