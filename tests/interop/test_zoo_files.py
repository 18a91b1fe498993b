"""Checkpoint files of CompressAI's zoo and of its training, in our evaluation: what its own says of them."""

import json

import pytest
import torch
from compressai.zoo.image import model_architectures

from jointiq.coding.fingerprint import fingerprint
from jointiq.coding.load import load_model
from jointiq.data.images import read_image, write_png
from jointiq.errors import UserError
from jointiq.evaluation.models import evaluate_image
from jointiq.evaluation.rd import read_rd
from jointiq.interop import eval_model
from jointiq.interop.pth_tar import write_pth_tar
from jointiq.models.compressai_codec import ARCHITECTURES
from tests.marks import slow, slow_but


def zoo_model(arch, seed=0):
    """A random model of the zoo, made so that its latents are not all zero."""
    torch.manual_seed(seed)
    net = model_architectures[arch](*((8,) if "cheng" in arch else (8, 12))).eval()
    with torch.no_grad():
        y = net.g_a(torch.rand(1, 3, 128, 128))
        for parameter in net.g_a[-1].parameters():
            parameter.mul_(3 / y.std())
        if hasattr(net, "h_s"):
            list(getattr(net, "entropy_parameters", net.h_s).parameters())[-1].uniform_(0.5, 3)
        if hasattr(net, "context_prediction"):
            # As any trained model's, whose last forward pass zeroed what is masked.
            net(torch.rand(1, 3, 64, 64))
    net.update(force=True)
    return net


@pytest.fixture
def images(picture, tmp_path):
    """One image of sides that are multiples of 64, one of odd sides."""
    write_png(tmp_path / "images" / "even.png", picture(192, 192))
    write_png(tmp_path / "images" / "odd.png", picture(161, 203, 1))
    return tmp_path / "images"


@pytest.fixture
def theirs(images, monkeypatch, capsys):
    """``theirs(arch, file, *options)``: what CompressAI's ``eval_model`` prints."""

    def run(arch, file, *options):
        arguments = ["checkpoint", str(images), "-a", arch, "-p", str(file), *map(str, options)]
        monkeypatch.setattr("sys.argv", ["eval_model", *arguments])
        capsys.readouterr()
        eval_model.main()
        return {key: value[0] for key, value in json.loads(capsys.readouterr().out)["results"].items()}

    return run


@pytest.fixture
def rows(images):
    """``rows(model)``: what our evaluation says of the images."""
    return lambda model: [evaluate_image(model, "", p.stem, read_image(p))[0] for p in sorted(images.iterdir())]


def mean(values):
    return sum(values) / len(values)


@pytest.mark.parametrize("arch", ["bmshj2018-factorized", "bmshj2018-hyperprior", "mbt2018-mean", slow("mbt2018")])
def test_our_evaluation_says_what_compressais_says(arch, theirs, rows, tmp_path):
    """To the byte, but for our container; the tables in the file are those that eval_model derives."""
    torch.save(zoo_model(arch).state_dict(), tmp_path / "zoo.pth.tar")
    model = load_model(tmp_path / "zoo.pth.tar")
    assert (model.config["arch"], model.config["N"], model.config["M"]) == (arch, 8, 12)
    ours = rows(model)
    results = theirs(arch, tmp_path / "zoo.pth.tar")
    assert mean([row.bpp_payload for row in ours]) == pytest.approx(results["bpp"], rel=1e-9)
    assert mean([row.psnr for row in ours]) == pytest.approx(results["psnr-rgb"], abs=1e-4)
    assert mean([row.ms_ssim for row in ours]) == pytest.approx(results["ms-ssim-rgb"], abs=1e-5)
    assert all(row.latents_equal and row.bpp_exact is None for row in ours) and results["bpp"] > 0.1
    header = mean([row.bpp - row.bpp_payload for row in ours])
    assert 0 < header < 8 * 30 / (161 * 203)


@pytest.mark.parametrize("arch", slow_but([one for one in ARCHITECTURES if one != "cheng2020-attn"], ARCHITECTURES))
def test_every_architecture_is_told_by_its_state(arch, tmp_path):
    """In the layout of CompressAI's training, before `update`, with the names of older versions."""
    net = zoo_model(arch)
    for module in net.modules():
        for name in ("_quantized_cdf", "_offset", "_cdf_length"):
            if hasattr(module, name):
                setattr(module, name, torch.IntTensor())
    old = {"matrices.": "_matrix", "biases.": "_bias", "factors.": "_factor"}
    state = {}
    for name, value in net.state_dict().items():
        for new, before in old.items():
            name = name.replace(f"entropy_bottleneck.{new}", f"entropy_bottleneck.{before}")
        state[f"module.{name}"] = value
    torch.save({"epoch": 3, "state_dict": state, "optimizer": {"state": {}}}, tmp_path / "checkpoint.pth.tar")
    model = load_model(tmp_path / "checkpoint.pth.tar")
    assert model.config["arch"] == arch
    torch.save(net.state_dict(), tmp_path / "plain.pth.tar")
    assert fingerprint(load_model(tmp_path / "plain.pth.tar")) == fingerprint(model)
    for name, value in net.state_dict().items():
        if value.numel():
            assert torch.equal(model.net.state_dict()[name], value), name


@pytest.mark.parametrize("arch", ["bmshj2018-factorized", "mbt2018-mean"])
def test_our_export_is_a_zoo_file(arch, theirs, rows, tmp_path):
    """A model that was trained here goes to CompressAI's own tools as their own."""
    torch.save(zoo_model(arch).state_dict(), tmp_path / "zoo.pth.tar")
    model = load_model(tmp_path / "zoo.pth.tar")
    assert write_pth_tar(model, tmp_path / "ours.pth.tar") == fingerprint(model)
    ours, zoo = (torch.load(tmp_path / f"{name}.pth.tar", weights_only=True) for name in ("ours", "zoo"))
    assert ours.keys() == zoo.keys() and all(torch.equal(value, zoo[name]) for name, value in ours.items())
    measured = rows(model)
    out = tmp_path / "out"
    results = theirs(arch, tmp_path / "ours.pth.tar", "-d", out, "-o", "curve", "--per-image")
    assert results["bpp"] == pytest.approx(mean([row.bpp_payload for row in measured]), rel=1e-9)
    # Their files, read back: of the curve, of each image, and of all images.
    assert read_rd(out / "curve.json").bpp == pytest.approx((results["bpp"],))
    assert read_rd(out).bpp == pytest.approx((results["bpp"],))
    assert {row["image"]: row["psnr"] for row in read_rd(out).images} == {
        row.image: pytest.approx(row.psnr, abs=1e-4) for row in measured
    }


def test_files_of_other_models(tmp_path):
    state = zoo_model("mbt2018-mean").state_dict()
    for name, damaged in {
        "missing": {key: value for key, value in state.items() if key != "h_s.2.bias"},
        "more": {**state, "Gain": torch.ones(8)},
        "foreign": {"conv1.weight": torch.zeros(3, 3)},
    }.items():
        torch.save(damaged, tmp_path / f"{name}.pth.tar")
        with pytest.raises(UserError, match=f"{name}.pth.tar is not a checkpoint.*CompressAI"):
            load_model(tmp_path / f"{name}.pth.tar")
