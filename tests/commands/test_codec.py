"""The command line of the codec, run in this process."""

import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from jointiq.coding import image_codec, refine, shipped
from jointiq.coding.export import write_export
from jointiq.coding.fingerprint import fingerprint
from jointiq.coding.image_codec import to_image, to_tensor
from jointiq.coding.refine import relax
from jointiq.commands import codec, encoding
from jointiq.data.images import read_image
from jointiq.errors import run_cli
from jointiq.models.objective import Objective
from tests.data.test_picture_formats import wide_gamut
from tests.shipped_folder import make_folder

ROOT = Path(__file__).parents[2]
ALL_RATES = {"rates": "continuous", "scan": "quarters"}


@pytest.fixture
def model(living):
    return living()


@pytest.fixture
def checkpoint(model, tmp_path):
    write_export(model, tmp_path / "model.safetensors")
    return tmp_path / "model.safetensors"


@pytest.fixture
def run(monkeypatch, capsys):
    """``run(*arguments)`` -> exit code, stdout, stderr."""

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["codec", *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            run_cli(codec.main)
        output = capsys.readouterr()
        return stop.value.code, output.out, output.err

    return call


def own_reconstruction(model, image):
    with torch.inference_mode():
        return to_image(model(to_tensor(image))["x_hat"])


def one_line(text):
    return text.startswith("error: ") and text.count("\n") == 1 and "Traceback" not in text


@pytest.mark.parametrize("size", [(1, 1), (1, 30), (37, 65)])
def test_encode_and_decode(run, model, checkpoint, picture, tmp_path, size):
    image = picture(*size)
    Image.fromarray(image).save(tmp_path / "in.png")
    code, out, _ = run("encode", tmp_path / "in.png", tmp_path / "out.jiq", "--checkpoint", checkpoint)
    assert code == 0
    length = (tmp_path / "out.jiq").stat().st_size
    assert f"{length} bytes" in out and f"{8 * length / (size[0] * size[1]):.4f} bpp" in out
    code, out, _ = run("decode", tmp_path / "out.jiq", tmp_path / "out.png", "--checkpoint", checkpoint)
    assert code == 0 and f"{size[1]}x{size[0]}" in out
    assert np.array_equal(np.asarray(Image.open(tmp_path / "out.png")), own_reconstruction(model, image))


def test_a_training_checkpoint_does_as_well(run, model, picture, tmp_path):
    state = {f"net.{name}": value for name, value in model.state_dict().items()}
    torch.save({"model_config": model.config, "state_dict": state}, tmp_path / "last.ckpt")
    Image.fromarray(picture(20, 30)).save(tmp_path / "in.png")
    options = ("--checkpoint", tmp_path / "last.ckpt", "--device", "cpu", "--threads", "1")
    assert run("encode", tmp_path / "in.png", tmp_path / "out.jiq", *options)[0] == 0
    assert run("decode", tmp_path / "out.jiq", tmp_path / "out.png", *options)[0] == 0


def test_info(run, model, checkpoint, picture, tmp_path):
    Image.fromarray(picture(40, 52)).save(tmp_path / "in.png")
    run("encode", tmp_path / "in.png", tmp_path / "out.jiq", "--checkpoint", checkpoint)
    code, out, _ = run("info", tmp_path / "out.jiq")
    assert code == 0
    for text in ("52x40", "wavefront", fingerprint(model)[:4].hex(), "format version", "segment z", "segment y", "CRC"):
        assert text in out


def test_verify(run, checkpoint, picture, tmp_path):
    Image.fromarray(picture(40, 52)).save(tmp_path / "in.png")
    code, out, _ = run("verify", tmp_path / "in.png", "--checkpoint", checkpoint)
    assert code == 0 and "exact" in out and "PSNR" in out
    assert {path.name for path in tmp_path.iterdir()} == {"in.png", "model.safetensors"}


def test_verify_notices_a_difference(run, monkeypatch, checkpoint, picture, tmp_path):
    Image.fromarray(picture(40, 52)).save(tmp_path / "in.png")
    honest = image_codec.decode_image

    def other(model, data):
        decoded = honest(model, data)
        return replace(decoded, latents={**decoded.latents, "y": decoded.latents["y"] + 1})

    monkeypatch.setattr(image_codec, "decode_image", other)
    code, _, err = run("verify", tmp_path / "in.png", "--checkpoint", checkpoint)
    assert code == 2 and "differ" in err


def test_folder_with_one_bad_image(run, checkpoint, picture, tmp_path):
    folder = tmp_path / "in"
    (folder / "sub").mkdir(parents=True)
    for index, name in enumerate(("a.png", "sub/b.png", "c.png")):
        Image.fromarray(picture(20 + index, 30)).save(folder / name)
    (folder / "b.png").write_bytes(b"no image at all")
    code, out, err = run("encode", folder, tmp_path / "coded", "--checkpoint", checkpoint)
    assert code == 2
    assert f"3 of 4 files done, 1 failed ({folder / 'b.png'})" in out and "b.png" in err and "Traceback" not in err
    coded = sorted(path.relative_to(tmp_path / "coded").as_posix() for path in (tmp_path / "coded").rglob("*.*"))
    assert coded == ["a.jiq", "c.jiq", "sub/b.jiq"]

    damaged = tmp_path / "coded" / "c.jiq"
    damaged.write_bytes(damaged.read_bytes()[:-1])
    code, out, err = run("decode", tmp_path / "coded", tmp_path / "decoded", "--checkpoint", checkpoint)
    assert code == 2 and "2 of 3 files done, 1 failed" in out and "c.jiq" in err
    decoded = sorted(path.relative_to(tmp_path / "decoded").as_posix() for path in (tmp_path / "decoded").rglob("*.*"))
    assert decoded == ["a.png", "sub/b.png"]

    code, out, _ = run("verify", folder, "--checkpoint", checkpoint)
    assert code == 2 and "3 of 4 files done" in out


def test_whole_folder(run, checkpoint, picture, tmp_path):
    for name in ("a.png", "b.png"):
        (tmp_path / "in").mkdir(exist_ok=True)
        Image.fromarray(picture(20, 30)).save(tmp_path / "in" / name)
    code, out, _ = run("encode", tmp_path / "in", tmp_path / "coded", "--checkpoint", checkpoint)
    assert code == 0 and "2 of 2 files done" in out and "total:" in out


def test_two_images_of_one_name(run, checkpoint, picture, tmp_path):
    (tmp_path / "in").mkdir()
    Image.fromarray(picture(20, 30)).save(tmp_path / "in" / "a.png")
    Image.fromarray(picture(20, 30)).save(tmp_path / "in" / "a.bmp")
    code, _, err = run("encode", tmp_path / "in", tmp_path / "coded", "--checkpoint", checkpoint)
    assert code == 2 and one_line(err) and "would both be written" in err
    assert not (tmp_path / "coded").exists()


@pytest.fixture
def coded(run, checkpoint, picture, tmp_path):
    Image.fromarray(picture(40, 52)).save(tmp_path / "in.png")
    run("encode", tmp_path / "in.png", tmp_path / "in.jiq", "--checkpoint", checkpoint)
    return tmp_path / "in.jiq"


def test_wrong_model(run, living, coded, tmp_path):
    write_export(living(seed=1), tmp_path / "other.safetensors")
    code, _, err = run("decode", coded, tmp_path / "out.png", "--checkpoint", tmp_path / "other.safetensors")
    assert code == 2 and one_line(err) and "was written by the model" in err
    assert not (tmp_path / "out.png").exists()


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data[:-1],
        lambda data: data[: len(data) // 2],
        lambda data: b"",
        lambda data: b"\x89PNG" + data,
        lambda data: data[:60] + bytes([data[60] ^ 1]) + data[61:],
        lambda data: data + b"\0",
    ],
    ids=["last byte", "half", "empty", "foreign", "one bit", "one more byte"],
)
def test_damaged_file(run, checkpoint, coded, tmp_path, damage):
    coded.write_bytes(damage(coded.read_bytes()))
    (tmp_path / "out.png").write_bytes(b"kept")
    for command in (["decode", coded, tmp_path / "new.png", "--checkpoint", checkpoint], ["info", coded]):
        code, _, err = run(*command)
        assert code == 2 and one_line(err)
    code, _, _ = run("decode", coded, tmp_path / "out.png", "--checkpoint", checkpoint)
    assert code == 2
    assert (tmp_path / "out.png").read_bytes() == b"kept"
    assert not (tmp_path / "new.png").exists()


def test_inputs_that_are_converted(run, model, checkpoint, picture, tmp_path):
    colour = Image.fromarray(picture(33, 29))
    opaque = colour.convert("RGBA")
    for index, image in enumerate((colour.convert("L"), colour.convert("P"), colour.convert("1"), opaque)):
        source, target = tmp_path / f"{index}.png", tmp_path / f"{index}.jiq"
        image.save(source)
        assert run("encode", source, target, "--checkpoint", checkpoint)[0] == 0
        assert run("decode", target, tmp_path / "out.png", "--checkpoint", checkpoint)[0] == 0
        expected = own_reconstruction(model, np.array(image.convert("RGB")))
        assert np.array_equal(np.asarray(Image.open(tmp_path / "out.png")), expected)


def test_what_is_done_to_colours_is_said(run, model, checkpoint, picture, tmp_path):
    Image.fromarray(picture(33, 29)).save(tmp_path / "wide.png", icc_profile=wide_gamut())
    code, out, _ = run("encode", tmp_path / "wide.png", tmp_path / "wide.jiq", "--checkpoint", checkpoint)
    assert code == 0 and out.endswith(" to sRGB\n")
    run("decode", tmp_path / "wide.jiq", tmp_path / "out.png", "--checkpoint", checkpoint)
    assert np.array_equal(
        read_image(tmp_path / "out.png"), own_reconstruction(model, read_image(tmp_path / "wide.png"))
    )
    assert "icc_profile" not in Image.open(tmp_path / "out.png").info


def test_inputs_that_are_refused(run, checkpoint, picture, tmp_path):
    rgba = np.dstack([picture(20, 20), np.full((20, 20), 255, np.uint8)])
    rgba[3, 4, 3] = 0
    Image.fromarray(rgba).save(tmp_path / "alpha.png")
    Image.fromarray(np.arange(400, dtype=np.uint16).reshape(20, 20)).save(tmp_path / "deep.png")
    (tmp_path / "text.png").write_text("text")
    for name, message in (("alpha", "transparent"), ("deep", "8 bits"), ("text", "not an image"), ("none", "no such")):
        target = tmp_path / f"{name}.jiq"
        code, _, err = run("encode", tmp_path / f"{name}.png", target, "--checkpoint", checkpoint)
        assert code == 2 and one_line(err) and message in err
        assert not target.exists()


def test_wrong_arguments(run, checkpoint, coded, tmp_path):
    source = tmp_path / "in.png"
    options = ("--checkpoint", checkpoint)
    for arguments, message in (
        (["encode", source, tmp_path / "out.png", *options], "must end in .jiq"),
        (["decode", coded, tmp_path / "out.jpg", *options], "must end in .png"),
        (["decode", tmp_path / "no.jiq", tmp_path / "out.png", *options], "no such file"),
        (["encode", source, tmp_path / "o.jiq", "--checkpoint", tmp_path / "no.ckpt"], "no such checkpoint"),
        (["encode", source, tmp_path / "o.jiq", *options, "--device", "tpu"], "device='tpu'"),
        (["encode", source, tmp_path / "o.jiq", *options, "--threads", "0"], "threads=0"),
        (["info", tmp_path / "no.jiq"], "No such file"),
    ):
        code, _, err = run(*arguments)
        assert code == 2 and one_line(err) and message in err
    assert {path.suffix for path in tmp_path.iterdir()} == {".png", ".jiq", ".safetensors"}
    (tmp_path / "empty").mkdir()
    assert run("encode", tmp_path / "empty", tmp_path / "x", *options)[0] == 2
    assert run("decode", tmp_path / "empty", tmp_path / "x", *options)[0] == 2
    assert run("nonsense")[0] == 2


# --- models that come with the repository -----------------------------------------------------------------------------


@pytest.fixture
def weights(living, monkeypatch, tmp_path):
    """A shipped folder: a model for all rates, the default, and one of one rate."""
    monkeypatch.setattr(shipped, "WEIGHTS", tmp_path / "weights")
    return make_folder(tmp_path / "weights", {"all": living(**ALL_RATES), "one": living(seed=1)})


@pytest.fixture
def no_weights(monkeypatch, tmp_path):
    monkeypatch.setattr(shipped, "WEIGHTS", tmp_path / "weights")


def written_by(path):
    return path.read_bytes()[4:8]


def test_without_a_checkpoint(run, weights, living, picture, tmp_path):
    image = picture(50, 77)
    Image.fromarray(image).save(tmp_path / "in.png")
    for options, quality in (((), 50), (("--quality", "3"), 3), (("--quality", "99.5"), 99.5)):
        assert run("encode", tmp_path / "in.png", tmp_path / "out.jiq", *options)[0] == 0
        assert written_by(tmp_path / "out.jiq") == fingerprint(living(**ALL_RATES))[:4]
        assert run("decode", tmp_path / "out.jiq", tmp_path / "out.png")[0] == 0
        expected = own_reconstruction(living(**ALL_RATES).at(quality), image)
        assert np.array_equal(np.asarray(Image.open(tmp_path / "out.png")), expected)
        code, out, _ = run("verify", tmp_path / "in.png", *options)
        assert code == 0 and f"{(tmp_path / 'out.jiq').stat().st_size} bytes" in out
    assert "default: 50" in " ".join(run("encode", "--help")[1].split())


def test_a_folder_of_files_of_several_models(run, weights, living, checkpoint, picture, monkeypatch, tmp_path):
    image = picture(33, 29)
    Image.fromarray(image).save(tmp_path / "in.png")
    for name, model in (("a", "all"), ("b", "one"), ("c", "all"), ("d", "one")):
        source = ("--checkpoint", weights / f"{model}.safetensors")
        run("encode", tmp_path / "in.png", tmp_path / "coded" / f"{name}.jiq", *source)
    write_export(living(seed=5), tmp_path / "foreign.safetensors")
    options = ("--checkpoint", tmp_path / "foreign.safetensors")
    run("encode", tmp_path / "in.png", tmp_path / "coded" / "foreign.jiq", *options)
    (tmp_path / "coded" / "damaged.jiq").write_bytes(b"JIQ")

    loaded = []
    load = shipped.load_shipped
    monkeypatch.setattr(shipped, "load_shipped", lambda model, device: loaded.append(model.name) or load(model, device))
    code, out, err = run("decode", tmp_path / "coded", tmp_path / "decoded")
    assert code == 2 and "4 of 6 files done, 2 failed" in out
    assert loaded == ["all", "one"]
    assert "foreign.jiq" in err and "damaged.jiq" in err and "Traceback" not in err
    expected = {"a": living(**ALL_RATES), "b": living(seed=1)}
    for name, model in {**expected, "c": expected["a"], "d": expected["b"]}.items():
        decoded = np.asarray(Image.open(tmp_path / "decoded" / f"{name}.png"))
        assert np.array_equal(decoded, own_reconstruction(model, image))


def test_a_file_of_another_model(run, weights, living, picture, tmp_path):
    Image.fromarray(picture(33, 29)).save(tmp_path / "in.png")
    write_export(living(seed=5), tmp_path / "foreign.safetensors")
    run("encode", tmp_path / "in.png", tmp_path / "in.jiq", "--checkpoint", tmp_path / "foreign.safetensors")
    code, _, err = run("decode", tmp_path / "in.jiq", tmp_path / "out.png")
    assert code == 2 and one_line(err) and "none of the shipped ones" in err and "--checkpoint" in err
    assert fingerprint(living(seed=5))[:4].hex() in err and not (tmp_path / "out.png").exists()
    options = ("--checkpoint", tmp_path / "foreign.safetensors")
    assert run("decode", tmp_path / "in.jiq", tmp_path / "out.png", *options)[0] == 0


def test_info_names_a_shipped_model(run, weights, living, picture, tmp_path):
    Image.fromarray(picture(33, 29)).save(tmp_path / "in.png")
    run("encode", tmp_path / "in.png", tmp_path / "in.jiq", "--quality", "2")
    out = run("info", tmp_path / "in.jiq")[1]
    assert "shipped model      all\n" in out and "quality            2\n" in out
    (weights / "index.json").write_text("{")
    code, out, _ = run("info", tmp_path / "in.jiq")
    assert code == 0 and "damaged" in out
    (weights / "index.json").unlink()
    code, out, _ = run("info", tmp_path / "in.jiq")
    assert code == 0 and "shipped model      none" in out


def test_shipped_weights_that_cannot_be_used(run, weights, picture, tmp_path):
    Image.fromarray(picture(33, 29)).save(tmp_path / "in.png")
    run("encode", tmp_path / "in.png", tmp_path / "in.jiq", "--quality", "2")
    path = weights / "all.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"\0\0")
    for command in (["encode", tmp_path / "in.png", tmp_path / "new.jiq", "--quality", "2"],
                    ["verify", tmp_path / "in.png", "--quality", "2"],
                    ["decode", tmp_path / "in.jiq", tmp_path / "new.png"]):  # fmt: skip
        code, _, err = run(*command)
        assert code == 2 and one_line(err) and "all.safetensors is damaged" in err
    assert not (tmp_path / "new.jiq").exists() and not (tmp_path / "new.png").exists()


def test_nothing_shipped(run, no_weights, coded, tmp_path):
    for options in ((), ("--quality", "2")):
        code, _, err = run("encode", tmp_path / "in.png", tmp_path / "new.jiq", *options)
        assert code == 2 and one_line(err) and "no trained models are shipped" in err and "--checkpoint" in err
    code, _, err = run("decode", coded, tmp_path / "out.png")
    assert code == 2 and one_line(err) and "no trained models are shipped" in err and "--checkpoint" in err


def test_checkpoint_or_quality(run, weights, checkpoint, coded, tmp_path):
    both = ("--checkpoint", checkpoint, "--quality", "1")
    for command in (["encode", tmp_path / "in.png", tmp_path / "new.jiq"], ["verify", tmp_path / "in.png"]):
        code, _, err = run(*command, *both)
        assert code == 2 and "this model has one rate" in err
    assert run("decode", coded, tmp_path / "new.png", "--quality", "1")[0] == 2
    assert not (tmp_path / "new.jiq").exists() and not (tmp_path / "new.png").exists()


WRITER = """
import sys
from jointiq.files import write_bytes
for _ in range(200):
    write_bytes(sys.argv[1], bytes([int(sys.argv[2])]) * 300_000)
"""


def test_two_processes_that_write_one_file_never_mix(tmp_path):
    target = tmp_path / "out.jiq"
    writers = [subprocess.Popen([sys.executable, "-c", WRITER, target, str(value)], cwd=ROOT) for value in (1, 2)]
    seen = set()
    while any(writer.poll() is None for writer in writers):
        if target.exists():
            data = target.read_bytes()
            assert len(data) == 300_000 and len(set(data)) == 1
            seen.add(data[0])
    assert [writer.wait() for writer in writers] == [0, 0]
    assert seen == {1, 2}
    assert list(tmp_path.iterdir()) == [target]


@pytest.mark.slow
def test_encode_and_decode_in_separate_processes(model, checkpoint, picture, tmp_path):
    Image.fromarray(picture(61, 83)).save(tmp_path / "in.png")
    for command, threads in (("encode in.png out.jiq", "2"), ("decode out.jiq out.png", "1")):
        name, source, target = command.split()
        arguments = [name, tmp_path / source, tmp_path / target, "--checkpoint", checkpoint, "--threads", threads]
        subprocess.run([sys.executable, "-W", "ignore", "-m", "src.codec", *arguments], cwd=ROOT, check=True)
    decoded = np.asarray(Image.open(tmp_path / "out.png")).astype(int)
    assert np.abs(decoded - own_reconstruction(model, picture(61, 83))).max() <= 1


@pytest.fixture(scope="module")
def all_rates(living, tmp_path_factory):
    """An export of a model for all rates."""
    path = tmp_path_factory.mktemp("rates") / "model.safetensors"
    model = living(**ALL_RATES)
    model.objective = Objective(0.1, lmbda_range=(0.9999, 0.9999))
    write_export(model, path)
    return path


@pytest.fixture(scope="module")
def photographs(picture, tmp_path_factory):
    folder = tmp_path_factory.mktemp("photographs")
    for name, size in {"a.png": (64, 80), "b.png": (33, 50)}.items():
        Image.fromarray(picture(*size)).save(folder / name)
    return folder


def test_files_of_a_quality_say_it(run, all_rates, photographs, tmp_path):
    sizes = []
    for quality in (1, 55.5, 100):
        target = tmp_path / f"{quality}.jiq"
        code, out, _ = run("encode", photographs / "a.png", target, "--checkpoint", all_rates, "--quality", quality)
        assert code == 0 and f"quality {quality:g}" in out
        code, out, _ = run("info", target)
        assert code == 0 and f"quality            {quality:g}\n" in out and "format version     2" in out
        assert run("decode", target, tmp_path / "out.png", "--checkpoint", all_rates)[0] == 0
        sizes.append(target.stat().st_size)
    assert sizes == sorted(set(sizes))
    code, out, _ = run("verify", photographs / "a.png", "--checkpoint", all_rates, "--quality", 20)
    assert code == 0 and "latents exact" in out


def test_a_size_is_searched_for(run, all_rates, photographs, tmp_path):
    target = tmp_path / "a.jiq"
    encode = ("encode", photographs / "a.png", target, "--checkpoint", all_rates)
    ends = []
    for quality in (1, 100):
        assert run(*encode, "--quality", quality)[0] == 0
        ends.append(target.stat().st_size)
    wanted = sum(ends) // 2
    code, out, _ = run(*encode, "--bytes", wanted)
    size = target.stat().st_size
    assert code == 0 and 0.97 * wanted <= size <= wanted and "quality" in out
    code, out, _ = run(*encode, "--bpp", 8 * wanted / (64 * 80))
    assert code == 0 and abs(target.stat().st_size / wanted - 1) < 0.02
    code, out, _ = run(*encode, "--bytes", 5)
    assert code == 0 and target.stat().st_size == ends[0] and "quality 1, the lowest there is" in out
    # Every picture of a folder for itself.
    folder = tmp_path / "files"
    code, out, _ = run("encode", photographs, folder, "--checkpoint", all_rates, "--bytes", wanted)
    assert code == 0 and all(path.stat().st_size <= wanted for path in folder.iterdir())


def test_a_psnr_is_searched_for(run, all_rates, photographs, tmp_path):
    """The model is not trained, so its dB are low, but they differ from quality to quality."""
    target = tmp_path / "a.jiq"
    encode = ("encode", photographs / "a.png", target, "--checkpoint", all_rates)
    code, out, _ = run(*encode, "--psnr", 90)
    assert code == 0 and "quality 100, the highest there is" in out
    code, out, _ = run(*encode, "--psnr", 0.1)
    assert code == 0 and " dB, quality 1, the lowest there is" in out


def test_rates_that_cannot_be(run, checkpoint, all_rates, photographs, tmp_path):
    for model, options in (
        (all_rates, ("--quality", "101")),
        (all_rates, ("--quality", "0.5")),
        (all_rates, ("--bpp", "0")),
        (all_rates, ("--bytes", "-3")),
        (all_rates, ("--psnr", "nan")),
        (all_rates, ("--bpp", "inf")),
    ):
        code, _, err = run("encode", photographs / "a.png", tmp_path / "a.jiq", "--checkpoint", model, *options)
        assert code == 2 and one_line(err) and options[0].lstrip("-") in err, options
        assert not (tmp_path / "a.jiq").exists()
    for option in ("--quality", "--bpp"):
        code, _, err = run("encode", photographs / "a.png", tmp_path / "a.jiq", "--checkpoint", checkpoint, option, "1")
        assert code == 2 and one_line(err) and option in err and "model.rates=continuous" in err
    code, _, err = run("encode", photographs / "a.png", tmp_path / "a.jiq", "--bpp", "1", "--quality", "2")
    assert code == 2 and "not allowed with" in err


@pytest.fixture(scope="module")
def refinable(living, tmp_path_factory):
    """An export of a model that says what it was trained for: small files."""
    path = tmp_path_factory.mktemp("refinable") / "model.safetensors"
    model = living()
    model.objective = Objective(0.9)
    write_export(model, path)
    return path


@pytest.fixture(scope="module")
def larger(picture, tmp_path_factory):
    """Two pictures that are worth refining."""
    folder = tmp_path_factory.mktemp("larger")
    for name, size in {"a.png": (96, 128), "b.png": (70, 50)}.items():
        Image.fromarray(picture(*size)).save(folder / name)
    return folder


def test_refined_files(run, refinable, larger, monkeypatch, tmp_path):
    target = tmp_path / "a.jiq"
    encode = ("encode", larger / "a.png", target, "--checkpoint", refinable)
    code, out, _ = run(*encode)
    plain = target.read_bytes()
    assert code == 0 and "; refined" not in out
    code, out, err = run(*encode, "--refine", 40)
    assert code == 0 and err == ""
    assert "; refined in 40 steps: " in out and " % of bits saved at equal quality (-" in out
    assert target.stat().st_size < len(plain)
    assert f"{target.stat().st_size} bytes" in out
    refined = target.read_bytes()
    assert run("decode", target, tmp_path / "a.png", "--checkpoint", refinable)[0] == 0
    assert run(*encode, "--effort", "fast")[0] == 0 and target.read_bytes() == plain
    monkeypatch.setitem(encoding.EFFORTS, "normal", 40)
    assert run(*encode, "--effort", "normal")[0] == 0 and target.read_bytes() == refined
    code, out, err = run("encode", larger, tmp_path / "all", "--checkpoint", refinable, "--refine", 5)
    assert code == 0 and "2 of 2 files done" in out and err.count("refined in 5 steps") == 2


@pytest.mark.parametrize("folder", [False, True])
def test_ctrl_c_keeps_what_a_refinement_has_found(run, refinable, larger, monkeypatch, tmp_path, folder):
    """The file at hand is written, and none after it."""
    steps = []

    def relaxed(*given):
        steps.append(given)
        if len(steps) == 2 * 45:  # two latents a step
            signal.raise_signal(signal.SIGINT)
        return relax(*given)

    monkeypatch.setattr(refine, "relax", relaxed)
    source, target = (larger, tmp_path / "files") if folder else (larger / "a.png", tmp_path / "a.jiq")
    code, out, err = run("encode", source, target, "--checkpoint", refinable, "--refine", 60)
    assert code == 130 and "interrupted" in err
    line = err if folder else out
    assert "refined in 45 steps, stopped: " in line and " % of bits saved" in line
    assert ("1 of 2 files done, 1 left out" in err) == folder
    assert [path.name for path in tmp_path.rglob("*.jiq")] == ["a.jiq"]
    coded = target / "a.jiq" if folder else target
    assert run("decode", coded, tmp_path / "a.png", "--checkpoint", refinable)[0] == 0


def test_refined_files_keep_to_their_size(run, all_rates, photographs, tmp_path):
    target = tmp_path / "a.jiq"
    encode = ("encode", photographs / "a.png", target, "--checkpoint", all_rates, "--bytes", 190)
    code, out, _ = run(*encode, "--refine", 3)
    assert code == 0 and 0.9 * 190 < target.stat().st_size <= 190 and " quality " in out
    assert run("decode", target, tmp_path / "a.png", "--checkpoint", all_rates)[0] == 0


def test_what_cannot_be_refined(run, checkpoint, larger, tmp_path):
    encode = ("encode", larger / "a.png", tmp_path / "a.jiq", "--checkpoint", checkpoint)
    code, _, err = run(*encode, "--refine", "5")
    assert code == 2 and one_line(err) and "does not say what it was trained for" in err
    for steps in ("-1", "2.5", "nan"):
        code, _, err = run(*encode, "--refine", steps)
        assert code == 2 and one_line(err) and "--refine" in err, steps
    code, _, err = run(*encode, "--refine", "5", "--effort", "high")
    assert code == 2 and "not allowed with" in err
    code, _, err = run(*encode, "--refine", "many")
    assert code == 2 and one_line(err) and "argument --refine: 'many' is no number;" in err
    assert not (tmp_path / "a.jiq").exists()


def test_a_single_file_is_looked_at_before_a_model_is_loaded(run, larger, monkeypatch, tmp_path):
    monkeypatch.setattr(codec, "_model", lambda arguments: pytest.fail("seconds of work"))
    monkeypatch.setattr(codec.shipped, "Decoders", lambda *given: pytest.fail("seconds of work"))
    (tmp_path / "text.png").write_text("no picture")
    (tmp_path / "text.jiq").write_text("no file of ours")
    (tmp_path / "empty.png").touch()
    (tmp_path / "folder.jiq").mkdir()
    for given, problem in {
        ("encode", tmp_path / "text.png", tmp_path / "a.jiq"): "is not an image",
        ("encode", tmp_path / "empty.png", tmp_path / "a.jiq"): "is empty",
        ("verify", tmp_path / "text.png"): "is not an image",
        ("encode", larger / "a.png", tmp_path / "folder.jiq"): "is no file",
        ("decode", tmp_path / "text.jiq", tmp_path / "a.png"): "text.jiq: ",
    }.items():
        code, _, err = run(*given)
        assert code == 2 and one_line(err) and problem in err, given
    assert not (tmp_path / "a.jiq").exists()


@pytest.mark.parametrize("name", ["folder.jiq", "file.txt/a.jiq"])
def test_what_cannot_be_written_is_not_refined_first(run, refinable, larger, monkeypatch, tmp_path, name):
    (tmp_path / "folder.jiq").mkdir()
    (tmp_path / "file.txt").touch()
    monkeypatch.setattr(refine, "refine_image", lambda *given, **keys: pytest.fail("minutes of work"))
    code, _, err = run("encode", larger / "a.png", tmp_path / name, "--checkpoint", refinable, "--refine", "5")
    assert code == 2 and one_line(err) and f"cannot write {tmp_path / name}" in err
