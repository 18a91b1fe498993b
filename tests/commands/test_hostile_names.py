"""Names of files and folders that mean something somewhere, through every command that takes files."""

from __future__ import annotations

import json
import re
import sys
import unicodedata
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from jointiq.coding.export import write_export
from jointiq.commands import anchors, bdrate, codec, complexity, evaluate, export, report, status
from jointiq.data.images import read_image, write_png
from jointiq.errors import run_cli
from jointiq.evaluation.rd import RDCurve, read_rd, write_rd
from jointiq.runs.folder import describe, read_config
from jointiq.runs.status import write_status
from tests.training import tiny

ACCENTS = "Ängström é"
NAMES = [
    "two words", "  around  ", "a\tb", "a\nb", "a\rb", "a\\b", "a'b", 'a"b', "a`b`", "a\"'b", "(a)", "[a]", "[a",
    "a]", "[bold]a", "[/bold]", "[/]", "[link=x]a", "{a}", "{}", "{0}", "{a:b}", "$a", "$HOME", "$x$",
    "$\\frac{1}{0$", "${a}", "${oc.env:HOME}", "%s", "%(a)s%d%", "a|b", "<b>", "<script>alert(1)</script", "&amp;",
    "a=b", "a,b", "a:b", "a;b", "a#b", "a@b", "a*b", "a?b", "**", "~", "!a", "-a", "--help", "+a", "a..", "null",
    "1e5", "a^_b~c", "\U0001f600\u200d", "\u202ecba", "\x1b[31mred", unicodedata.normalize("NFC", ACCENTS),
    unicodedata.normalize("NFD", ACCENTS), "\udcff", "x" * 233,
]  # fmt: skip


def image() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (17, 20, 3), dtype=np.uint8)


def typed(key: str, value: object) -> str:
    """``key=value`` as a shell hands it over when the value is quoted for Hydra."""
    text = re.sub(r'(\\*)("|$)', r"\1\1\2", str(value)).replace('"', '\\"').replace("${", "\\${")
    return f'{key}="{text}"'


Call = Callable[..., str]


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Call:
    """``call(module, *arguments)``: what a command prints that has to end well."""

    def call(module: ModuleType, *arguments: object) -> str:
        monkeypatch.setattr(sys, "argv", [module.__name__, *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            run_cli(module.main)
        said = capsys.readouterr()
        assert not stop.value.code, (arguments, said)
        return said.out

    return call


@pytest.fixture(scope="module")
def model(living: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "model.safetensors"
    write_export(living(), path)
    return path


def curve(name: str, factor: float = 1.0) -> RDCurve:
    results = {"bpp": tuple(factor * bpp for bpp in (0.1, 0.2, 0.4, 0.8)), "psnr-rgb": (28.0, 31.0, 34.0, 37.0)}
    rows = tuple({"image": "[/b]$<|.png", "bpp": bpp, "psnr": 30.0} for bpp in results["bpp"])
    return RDCurve(name, results, images=rows)


@pytest.mark.parametrize("name", NAMES)
def test_a_file_through_the_codec(tmp_path: Path, model: Path, name: str, call: Call) -> None:
    folder = tmp_path / name
    source, coded, decoded = (folder / f"{name}{suffix}" for suffix in (".png", ".jiq", "-2.png"))
    write_png(source, image())
    options = ("--checkpoint", model)
    for arguments in (
        ("encode", source, coded, *options), ("decode", coded, decoded, *options), ("verify", source, *options),
        ("info", coded),
    ):  # fmt: skip
        said = call(codec, *arguments)
        assert str(arguments[1]).encode("utf-8", "backslashreplace").decode() in said or name == "\udcff"
    assert read_image(decoded).shape == image().shape
    assert {path for path in folder.rglob("*") if path.is_file()} == {source, coded, decoded}


def test_a_folder_of_them_through_the_codec(tmp_path: Path, model: Path, call: Call) -> None:
    names = [name for name in NAMES if name != unicodedata.normalize("NFD", ACCENTS)]
    for name in names:
        write_png(tmp_path / "in" / name / f"{name}.png", image())
    said = call(codec, "encode", tmp_path / "in", tmp_path / "coded", "--checkpoint", model)
    assert f"{len(names)} of {len(names)} files done" in said
    call(codec, "decode", tmp_path / "coded", tmp_path / "out", "--checkpoint", model)
    for name in names:
        assert (tmp_path / "out" / name / f"{name}.png").is_file()
    call(codec, "verify", tmp_path / "in", "--checkpoint", model)


@pytest.mark.slow
def test_curves(tmp_path: Path, call: Call) -> None:
    for name in NAMES:
        write_rd(tmp_path / "in" / name / f"{name}.json", curve(name))
    write_rd(tmp_path / "in" / "anchors" / "jpeg.json", curve("jpeg", 1.5))
    for name in NAMES:
        file = tmp_path / "in" / name / f"{name}.json"
        assert "psnr" in call(bdrate, tmp_path / "in" / "anchors" / "jpeg.json", file)
        assert read_rd(file).name == name
    call(bdrate, "--results", tmp_path / "in", "--output", tmp_path / "out")
    table = (tmp_path / "out" / "bdrate.md").read_text(encoding="utf-8")
    assert "<script>" not in table and len(re.findall(r"^\|", table, re.MULTILINE)) >= len(NAMES)
    call(report, tmp_path / "in", "--output", tmp_path / "out" / "report.html", "--title", "[/b]$<|")
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert "<script>alert" not in page and "&lt;script&gt;alert" in page


@pytest.mark.slow
def test_runs(tmp_path: Path, call: Call) -> None:
    cfg = tiny.config("+experiment=jointiq", "scale=demo")
    for name in NAMES:
        describe(tmp_path / name, cfg)
        assert read_config(tmp_path / name).paths.run_dir == str(tmp_path / name)
        write_status(tmp_path / name, {"step": 1, "steps": 2, "failure": name})
    call(status, tmp_path)
    call(status, *(tmp_path / name for name in NAMES))


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_commands_of_hydra(tmp_path: Path, model: Path, name: str, call: Call) -> None:
    folder = tmp_path / name
    picture = folder / f"{name}.png"
    write_png(picture, image())
    (folder / f"{name}.safetensors").write_bytes(model.read_bytes())
    checkpoint = typed("checkpoint", folder / f"{name}.safetensors")
    data = ("data=folder", typed("data.test_dir", picture.parent), typed("data.pattern", "*.png"))
    call(
        evaluate, checkpoint, *data, typed("output", folder / f"{name}.json"), typed("pictures", folder / "p"),
        typed("name", name), "device=cpu", "complexity=none",
    )  # fmt: skip
    found = read_rd(folder / f"{name}.json")
    assert found.name == name and found.images[0]["image"] == picture.name
    call(
        anchors, "codecs=[jpeg]", "settings.jpeg_420=[50]", "settings.jpeg_444=[50]", "workers=1", *data,
        typed("output", folder / "a"), typed("pictures", folder / "q"),
    )  # fmt: skip
    assert read_rd(folder / "a" / "jpeg_420.json").images[0]["image"] == picture.name
    call(complexity, checkpoint, typed("output", folder / f"{name}-c.json"), "size=16x16", "repeats=0", "device=cpu")
    assert json.loads((folder / f"{name}-c.json").read_text())["width"] == 16
    call(export, folder / f"{name}.safetensors", folder / f"{name}-2.safetensors")
