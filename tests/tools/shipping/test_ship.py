"""The whole command but for the coding of images, whose numbers are given; see ``test_measured``."""

import hashlib
import json
import sys
from dataclasses import replace

import pytest

from jointiq.coding import shipped
from jointiq.coding.fingerprint import fingerprint
from jointiq.coding.load import load_model
from jointiq.console import NOTHING
from jointiq.data.images import write_png
from jointiq.errors import UserError
from tests.tools.shipping.runs import make_run
from tools import ship as entry
from tools.shipping import ship as shipping
from tools.shipping.card import BEGIN, END, filled
from tools.shipping.ship_measurements import Means

RATES = "model.rates=continuous"
ALL_RATES = {"rates": "continuous"}
CARD = f"# Card\n\n{BEGIN}\nearlier\n{END}\n\nafter\n"
NAMES = ["jointiq-mse", "jointiq-ms-ssim"]
NUMBERS = {"jointiq-mse": [(0.1, 25.0), (0.2, 27.0)], "jointiq-ms-ssim": [(0.4, 30.0), (0.8, 33.25)]}
#: The 16-bit transforms of the second lose something.
LOSS = {"jointiq-ms-ssim": 0.01}


@pytest.fixture
def output(tmp_path, monkeypatch):
    monkeypatch.setattr(shipped, "WEIGHTS", tmp_path / "weights")
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / "README.md").write_text(CARD)
    return tmp_path / "weights"


@pytest.fixture
def numbers(monkeypatch):
    given = dict(NUMBERS)

    def measure_exports(files, images, device, workers, rows):
        assert len(images) == 2
        losses = {file: LOSS.get(file.stem, 0.001) if file.parent.name == "float16" else 0.0 for file in files}
        return {
            file: tuple(
                Means(quality, bpp, psnr - losses[file], None, 1, 2)
                for quality, (bpp, psnr) in zip((1, 100), given[file.stem], strict=True)
            )
            for file in files
        }

    monkeypatch.setattr(shipping, "measure_exports", measure_exports)
    return given


@pytest.fixture(scope="module")
def runs(living, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    return tuple(
        make_run(folder / name, living(seed=seed, **ALL_RATES), 10 + seed, f"distortion.name={name}", RATES)
        for seed, name in enumerate(("mse", "ms_ssim"))
    )


@pytest.fixture
def options(runs, picture, output, numbers, tmp_path):
    for seed in (7, 8):
        write_png(tmp_path / "test" / f"{seed}.png", picture(20, 30, seed=seed))
    return shipping.Options(runs, f"kodak={tmp_path / 'test'}", output, tmp_path / "results")


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture
def index(options, output):
    """The index of a run with ``--half``."""
    written = shipping.ship(replace(options, half=True))
    assert [path.name for path in written] == [*(f"{name}.safetensors" for name in NAMES), "README.md", "index.json"]
    assert {path.name for path in output.iterdir()} == {path.name for path in written}
    return json.loads((output / "index.json").read_text())


def test_what_is_shipped(index, options, living):
    assert (index["test"]["name"], index["test"]["images"]) == ("kodak", 2)
    for seed, (model, facts) in enumerate(zip(shipped.shipped_models(), index["models"], strict=True)):
        assert model.name == NAMES[seed] and facts["training"]["stages"][0]["lambdas"] == [0.6, 0.008]
        assert model.sha256 == hashlib.sha256(model.path.read_bytes()).hexdigest()
        assert facts["training"]["steps"] == 10 + seed
        assert facts["parameters"] == sum(weight.numel() for weight in living(seed=seed, **ALL_RATES).parameters())
        assert fingerprint(shipped.load_shipped(model)) == model.fingerprint
    # What is kept in 32 bits is the trained model itself.
    assert shipped.of_name(NAMES[1]).fingerprint == fingerprint(load_model(options.checkpoints[1]))


def test_16_bits_where_they_lose_nothing(index):
    assert [model["transforms"] for model in index["models"]] == ["float16", "float32"]
    for facts in index["models"]:
        assert facts["measured"] == facts["by_transforms"][facts["transforms"]]
        assert set(facts["by_transforms"]) == {"float32", "float16"}


def test_the_card_is_filled(index, output):
    text = (output / "README.md").read_text()
    assert text.startswith("# Card") and text.endswith("after\n") and "earlier" not in text
    assert "| 26.999 |" in text and "| 0.6 to 0.008 |" in text and NOTHING in text
    assert filled(text, index) == text


def test_what_all_commands_of_a_model_share_is_written_once(index, output):
    training = index["models"][0]["training"]
    first = {**training["stages"][0], "command": "python -m src.train a=1 b=2 lr=3", "lr": 3, "hours": 0.5}
    training["stages"] = [first, {**first, "command": "python -m src.train a=1 b=4 lr=3", "hours": None}]
    text = filled((output / "README.md").read_text(), index)
    assert 'train() { python -m src.train a=1 lr=3 "$@"; }\ntrain b=2\ntrain b=4\n' in text
    assert "| 3 | 0.6 to 0.008 | 0.50 |\n| training 2 | 10 |" in text


def test_no_paths_and_no_temporary_files_are_left(index, output, tmp_path):
    for path in ("README.md", "index.json"):
        assert str(tmp_path.parent) not in (output / path).read_text()
    assert sorted(path.name for path in tmp_path.iterdir() if path.name.startswith(".")) == []


def test_32_bits_unless_asked(options, output):
    shipping.ship(replace(options, trained_on="a clock"))
    index = json.loads((output / "index.json").read_text())
    assert {model["transforms"] for model in index["models"]} == {"float32"}
    assert {model["training"]["device"] for model in index["models"]} == {"a clock"}


def test_nothing_changes_unless_all_is_well(options, numbers, output, monkeypatch, tmp_path):
    shipping.ship(options)
    before = contents(output)
    numbers["jointiq-ms-ssim"] = [(0.4, 30.0), (0.3, 40.0)]
    with pytest.raises(UserError, match=r"jointiq-ms-ssim has 0\.3000 bpp at quality 100, 0\.4000 at 1"):
        shipping.ship(options)
    numbers["jointiq-ms-ssim"] = [(0.4, 30.0), (0.9, 40.0)]
    monkeypatch.setattr(shipping, "LIMIT_MB", 0.01)
    with pytest.raises(UserError, match=r"allowed: 0\.01 MB in all"):
        shipping.ship(options)
    assert contents(output) == before
    assert sorted(path.name for path in tmp_path.iterdir() if path.name.startswith(".")) == []


def test_test_images_that_were_trained_on(options, living, output, tmp_path):
    data = ("data=folder", f"data.train_dir={tmp_path / 'test'}", f"data.val_dir={tmp_path / 'test'}")
    first = make_run(tmp_path / "first", living(seed=6), 10, *data)
    last = make_run(tmp_path / "last", living(seed=5, **ALL_RATES), 10, f"init_from={first}", RATES)
    with pytest.raises(UserError, match="are in the training set"):
        shipping.ship(replace(options, checkpoints=(options.checkpoints[0], last)))
    assert set(contents(output)) == {"README.md"}


def test_equal_fingerprints(options, living, tmp_path):
    again = make_run(tmp_path / "again", living(seed=0, **ALL_RATES), 10, "distortion.name=ms_ssim", RATES)
    with pytest.raises(UserError, match="same fingerprint"):
        shipping.ship(replace(options, checkpoints=(options.checkpoints[0], again)))


def test_what_is_not_shipped(options, living, tmp_path):
    with pytest.raises(UserError, match="several of the checkpoints hold a jointiq-mse"):
        shipping.ship(replace(options, checkpoints=2 * options.checkpoints[:1]))
    one_rate = make_run(tmp_path / "one", living(), 10)
    with pytest.raises(UserError, match="a model of one rate; allowed: of all rates"):
        shipping.ship(replace(options, checkpoints=(one_rate,)))


def test_earlier_models_are_removed(options, output):
    (output / "q1.safetensors").touch()
    shipping.ship(options)
    assert sorted(path.stem for path in output.glob("*.safetensors")) == sorted(NAMES)


def test_no_place_in_the_card(options, output):
    (output / "README.md").write_text("# Card\n")
    with pytest.raises(UserError, match=r"README\.md: no card with the lines"):
        shipping.ship(options)


def test_the_card_comes_along_to_another_folder(options, output, tmp_path):
    shipping.ship(replace(options, output=tmp_path / "new"))
    assert (tmp_path / "new" / "README.md").read_text().startswith("# Card")
    assert (output / "README.md").read_text() == CARD


def test_command_line(options, output, monkeypatch, capsys):
    words = [*options.checkpoints, "--test", options.test, "--half", "--results", options.results, "--device", "cpu"]
    monkeypatch.setattr(sys, "argv", ["ship", *map(str, words)])
    entry.main()
    out = capsys.readouterr().out
    assert "jointiq-mse" in out and "26.999" in out and str(output / "index.json") in out
    monkeypatch.setattr(sys, "argv", ["ship", "A.ckpt", *map(str, words[1:])])
    with pytest.raises(UserError, match="A.ckpt: no such checkpoint"):
        entry.main()
    with pytest.raises(SystemExit) as stop:
        monkeypatch.setattr(sys, "argv", ["ship", "--help"])
        entry.main()
    assert stop.value.code == 0
