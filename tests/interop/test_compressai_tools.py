"""CompressAI's own programs on our models: what they print is what our own evaluation says."""

import json
import runpy
import subprocess
import sys
from pathlib import Path

import compressai.zoo
import matplotlib
import pytest
import torch
import torch.nn.functional as F
from compressai.ops import compute_padding
from compressai.utils.plot.__main__ import main as compressai_plot
from compressai.zoo.image import model_architectures

from jointiq.coding.fingerprint import fingerprint
from jointiq.coding.image_codec import to_tensor
from jointiq.coding.load import load_model
from jointiq.data.images import read_image, write_png
from jointiq.errors import UserError
from jointiq.evaluation.models import evaluate_checkpoints, evaluate_image
from jointiq.evaluation.rd import read_rd, write_rd
from jointiq.interop import eval_model, update_model
from jointiq.interop.pth_tar import write_pth_tar
from jointiq.interop.registries import register
from jointiq.models import build_model, model_classes
from jointiq.models.jointiq import JointIQNet

ROOT = Path(__file__).resolve().parents[2]
GRDN = {"name": "grdn", "grdbs": 1, "rdbs": 1, "convs": 1, "kernels": 4}
# A multiple of 64 each, and large enough for MS-SSIM. Each side takes two bytes in the strings.
HEIGHT, WIDTH = 192, 256
SIZE_BYTES = 4


@pytest.fixture
def checkpoint(living, tmp_path):
    write_pth_tar(living(enhancer=GRDN), tmp_path / "tiny.pth.tar")
    return tmp_path / "tiny.pth.tar"


@pytest.fixture
def images(picture, tmp_path):
    for seed in (0, 1):
        write_png(tmp_path / "images" / f"{seed}.png", picture(HEIGHT, WIDTH, seed))
    return tmp_path / "images"


@pytest.fixture
def tool(monkeypatch, capsys):
    """``tool(module, *arguments)``: run a command line in this process, give what it prints."""

    def run(module, *arguments):
        monkeypatch.setattr(sys, "argv", ["tool", *map(str, arguments)])
        capsys.readouterr()
        module.main()
        return capsys.readouterr().out

    return run


@pytest.fixture
def evaluate(tool, images, checkpoint):
    """``evaluate(*options)``: results of eval_model on the images."""

    def run(*options, source=images, file=checkpoint):
        printed = tool(eval_model, "checkpoint", source, "-a", "jointiq", "-p", file, *options)
        return {key: value[0] for key, value in json.loads(printed)["results"].items()}

    return run


def mean(values):
    return sum(values) / len(values)


def test_the_strings_and_the_picture_are_those_of_our_codec(evaluate, images, checkpoint):
    """On sides that are multiples of 64, to the byte: the strings are our payload and the size of the image."""
    model = JointIQNet.from_state_dict(torch.load(checkpoint, weights_only=True)).eval()
    ours = [evaluate_image(model, "tiny", "image", read_image(path))[0] for path in sorted(images.iterdir())]
    results = evaluate()
    size = 8 * SIZE_BYTES / (HEIGHT * WIDTH)
    assert results["bpp"] == pytest.approx(mean([row.bpp_payload for row in ours]) + size, rel=1e-9)
    assert results["psnr-rgb"] == pytest.approx(mean([row.psnr for row in ours]), abs=1e-4)
    assert results["ms-ssim-rgb"] == pytest.approx(mean([row.ms_ssim for row in ours]), abs=1e-6)
    assert results["bpp"] > 0.1 and ours[0].psnr != ours[0].psnr_mid
    assert evaluate("--no-update")["bpp"] == results["bpp"]


@pytest.mark.slow
def test_it_agrees_with_our_evaluation(evaluate, images, checkpoint):
    """Which runs the networks in another memory layout: a latent on the edge may round the other way."""
    ours = evaluate_checkpoints([str(checkpoint)], sorted(images.iterdir()), "ours").results
    results = evaluate()
    assert results["bpp"] == pytest.approx(ours["bpp-payload"][0], rel=5e-3)
    assert results["psnr-rgb"] == pytest.approx(ours["psnr-rgb"][0], abs=1e-2)


def test_entropy_estimation_is_our_estimate(evaluate, images, checkpoint):
    ours = [
        evaluate_image(load_model(checkpoint), "tiny", "image", read_image(path))[0]
        for path in sorted(images.iterdir())
    ]
    results = evaluate("--entropy-estimation")
    assert results["bpp"] == pytest.approx(mean([row.bpp_estimate for row in ours]), rel=1e-4)
    assert results["psnr-rgb"] == pytest.approx(mean([row.psnr for row in ours]), abs=1e-3)
    assert results["bpp"] != evaluate()["bpp"]


def test_other_sides_are_padded_by_eval_model(evaluate, checkpoint, picture, tmp_path):
    write_png(tmp_path / "odd" / "odd.png", picture(170, 201))
    results = evaluate(source=tmp_path / "odd")
    image, model = read_image(tmp_path / "odd" / "odd.png"), load_model(checkpoint)
    pad, unpad = compute_padding(170, 201, min_div=64)
    coded = model.compress(F.pad(to_tensor(image), pad))
    assert results["bpp"] == pytest.approx(8 * sum(len(s[0]) for s in coded["strings"]) / image[..., 0].size, rel=1e-3)
    ours = evaluate_image(model, "tiny", "image", read_image(tmp_path / "odd" / "odd.png"))[0]
    assert results["bpp"] > 1.03 * ours.bpp
    # The estimate is of the image as it is.
    estimate = evaluate("--entropy-estimation", source=tmp_path / "odd")
    assert estimate["bpp"] == pytest.approx(ours.bpp_estimate, rel=1e-4)


@pytest.mark.slow
def test_half(evaluate):
    full, half = evaluate(), evaluate("--half")
    assert half["bpp"] == pytest.approx(full["bpp"], rel=0.02) and half != full
    assert half["psnr-rgb"] == pytest.approx(full["psnr-rgb"], abs=0.1)


def test_files_per_image_and_curve(evaluate, tool, images, checkpoint, living, tmp_path):
    """Two checkpoints are two points of a curve; our reader and CompressAI's plot take it, beside ours."""
    write_pth_tar(living(seed=1), tmp_path / "other.pth.tar")
    out = tmp_path / "out"
    files = (checkpoint, tmp_path / "other.pth.tar")
    tool(eval_model, "checkpoint", images, "-a", "jointiq", "-d", out, "-o", "curve", "--per-image", "-p", *files)
    curve = read_rd(out / "curve.json")
    assert curve.name == "jointiq-mse" and len(curve) == 2 and "encoding_time" in curve.results
    rows = [read_rd(path) for path in sorted(out.glob("*-tiny-ans.json"))]
    assert len(rows) == 2
    assert any(bpp == pytest.approx(mean([row.bpp[0] for row in rows])) for bpp in curve.bpp)
    ours = evaluate_checkpoints([str(file) for file in files], sorted(images.iterdir()), "ours")
    write_rd(tmp_path / "ours.json", ours)
    assert curve.results["psnr-rgb"] == pytest.approx(ours.results["psnr-rgb"], abs=1e-3)
    matplotlib.use("Agg")
    compressai_plot(["-f", str(out / "curve.json"), str(tmp_path / "ours.json"), "-o", str(tmp_path / "plot.png")])
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")


def test_update_model(tool, checkpoint, tmp_path):
    tool(update_model, checkpoint, "-a", "jointiq", "-d", tmp_path / "named")
    (file,) = (tmp_path / "named").iterdir()
    assert file.name.startswith("tiny-") and file.name.endswith(".pth.tar")
    assert fingerprint(load_model(file)) == fingerprint(load_model(checkpoint))


def test_the_other_models_stay(tool):
    ours = {*model_classes(), "jointiq-vbr"}
    before = {name: model for name, model in compressai.zoo.image_models.items() if name not in ours}
    register()
    assert len(before) == 10 and before.items() < compressai.zoo.image_models.items()
    assert {"jointiq", "balle2017", "mbt2018"} <= model_architectures.keys() and "compressai" not in model_architectures


def test_models_of_other_names(tool, images, tmp_path):
    """Each by its own name, and none by another's."""
    torch.manual_seed(0)
    model = build_model({"name": "balle2017", "N": 8}).eval()
    write_pth_tar(model, tmp_path / "m.pth.tar")
    printed = tool(eval_model, "checkpoint", images, "-a", "balle2017", "-p", tmp_path / "m.pth.tar")
    ours = [evaluate_image(model, "m", "image", read_image(path))[0] for path in sorted(images.iterdir())]
    size = 8 * SIZE_BYTES / (HEIGHT * WIDTH)
    results = json.loads(printed)["results"]
    assert results["bpp"] == [pytest.approx(mean([row.bpp_payload for row in ours]) + size, rel=1e-3)]
    assert results["psnr-rgb"] == [pytest.approx(mean([row.psnr for row in ours]), abs=1e-3)]
    with pytest.raises(UserError, match="no jointiq checkpoint"):
        tool(eval_model, "checkpoint", images, "-a", "jointiq", "-p", tmp_path / "m.pth.tar")


# --- mistakes ---------------------------------------------------------------------------------------------------------


def test_images_too_small_for_ms_ssim(evaluate, picture, tmp_path):
    write_png(tmp_path / "small" / "small.png", picture(128, 192))
    with pytest.raises(UserError, match="more than 160 pixels"):
        evaluate(source=tmp_path / "small")


def test_no_published_weights(tool, images):
    with pytest.raises(UserError, match="no published weights"):
        tool(eval_model, "pretrained", images, "-a", "jointiq")


def test_files_that_are_no_checkpoints(evaluate, checkpoint, tmp_path):
    with pytest.raises(UserError, match="none.pth.tar"):
        evaluate(file=tmp_path / "none.pth.tar")
    torch.save({"g_a.0.weight": torch.zeros(3)}, tmp_path / "foreign.pth.tar")
    with pytest.raises(UserError, match="no jointiq checkpoint"):
        evaluate(file=tmp_path / "foreign.pth.tar")
    data = checkpoint.read_bytes()
    for number, damaged in enumerate((b"", b"text", data[: len(data) // 2])):
        path = tmp_path / f"{number}.pth.tar"
        path.write_bytes(damaged)
        with pytest.raises(UserError, match="damaged"):
            evaluate(file=path)


@pytest.mark.parametrize("architecture", ["jointiq", "mbt2018", "scale-hyperprior"])
def test_foreign_files_are_not_updated(tool, tmp_path, architecture):
    contents = ({"g_a.0.weight": torch.zeros(3)}, {"state_dict": {"a": 1}}, {"network": [1, 2]}, [1, 2], torch.zeros(2))
    for content in contents:
        torch.save(content, tmp_path / "foreign.pth.tar")
        with pytest.raises(UserError, match="no jointiq checkpoint|does not hold a model of the architecture"):
            tool(update_model, tmp_path / "foreign.pth.tar", "-a", architecture, "-d", tmp_path / "out")
    (tmp_path / "text.pth.tar").write_text("text")
    for name, message in (("text.pth.tar", "damaged"), ("none.pth.tar", "is not a valid file")):
        with pytest.raises(UserError, match=message):
            tool(update_model, tmp_path / name, "-a", architecture)
    assert not (tmp_path / "out").exists()


def test_a_mistake_is_one_line(monkeypatch, capsys, images, tmp_path):
    monkeypatch.setattr(sys, "argv", ["", "checkpoint", str(images), "-a", "jointiq", "-p", str(tmp_path / "none.tar")])
    with pytest.raises(SystemExit) as caught:
        runpy.run_path(eval_model.__file__, run_name="__main__")
    assert caught.value.code == 2
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.slow
def test_the_command_as_typed(images, checkpoint):
    command = [sys.executable, "-W", "ignore", "-m", "jointiq.interop.eval_model", "checkpoint"]
    arguments = [images, "-a", "jointiq", "-p", checkpoint]
    done = subprocess.run([*command, *arguments], cwd=ROOT, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["results"]["bpp"][0] > 0.1


@pytest.mark.parametrize("options", [(), ("--entropy-estimation",)])
def test_a_model_of_all_rates_is_one_curve(tool, living, images, tmp_path, options):
    model = living(rates="continuous", scan="quarters")
    write_pth_tar(model, tmp_path / "rates.pth.tar")
    steps = ("--vbr_quantstep", "100,40,1", "--vbr_tr_stage", 2)
    arguments = ("checkpoint", images, "-a", "jointiq-vbr", "-p", tmp_path / "rates.pth.tar", *steps, *options)
    results = json.loads(tool(eval_model, *arguments))["results"]
    assert sorted(results["bpp"]) == pytest.approx(results["bpp"][::-1])  # its order: the largest step's inverse first
    x = [to_tensor(read_image(path)) for path in sorted(images.iterdir())]
    for quality, bpp in zip((100, 40, 1), results["bpp"], strict=True):
        if options:
            continue
        coded = [model.compress(image, quality=quality) for image in x]
        sizes = [sum(len(string[0]) for string in one["strings"]) for one in coded]
        assert bpp == pytest.approx(8 * mean(sizes) / (HEIGHT * WIDTH))


def test_one_rate_is_no_vbr(tool, images, checkpoint):
    with pytest.raises(UserError, match="one rate"):
        tool(eval_model, "checkpoint", images, "-a", "jointiq-vbr", "-p", checkpoint, "--vbr_quantstep", "1")
