"""What a person at the keyboard waits for: help, refused command lines and light commands do without the network."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fresh import Fresh
from tests.marks import slow

HELP = (
    "src.anchors", "src.bdrate", "src.codec", "src.codec decode", "src.codec encode", "src.codec info",
    "src.codec verify", "src.complexity", "src.dashboard", "src.demo", "src.evaluate", "src.export", "src.prepare",
    "src.report", "src.status", "src.study", "src.train",
    "tools.bench", "tools.bench.cost", "tools.bench.train", "tools.fuzz", "tools.ship",
)  # fmt: skip


@pytest.mark.parametrize("command", HELP)
def test_help(fresh: Fresh, command: str) -> None:
    code, imported, said = fresh.run(*command.split(), "--help")
    assert (code, imported) == (0, [])
    assert f"python -m {command}" in said
    assert max(map(len, said.splitlines())) <= 80
    assert "_base" not in said and "_patches" not in said


def test_help_lists_the_groups_without_what_is_no_choice(fresh: Fresh) -> None:
    said = fresh.run("src.train", "--help")[2]
    groups = dict(
        line.split(": ", 1) for line in said.splitlines() if line.startswith(("data: ", "trainer: ", "scale"))
    )
    assert groups == {
        "data": "folder, prepared, sample",
        "scale": "auto, cpu, cpu_long, demo, paper, pilot",
        "trainer": "auto, cpu, ddp, ddp_cpu, gpu",
    }


@pytest.mark.parametrize(
    ("module", "arguments", "told"),
    [
        slow("src.bdrate", ["--nope"], "unrecognized arguments: --nope"),
        ("src.bdrate", ["--metric", "lpips"], "invalid choice: 'lpips'"),
        slow("src.bdrate", ["missing.json", "missing.json"], "missing.json"),
        ("tools.bench.train", ["--modes", "fp8"], "invalid choice: 'fp8'"),
        ("src.codec", ["encode", "README.md", "out.txt"], "must end in .jiq"),
        slow("src.codec", ["encode", "README.md", "out.jiq", "--quality", "0"], "--quality=0 is not allowed"),
        ("src.export", ["last.ckpt", "model.onnx"], "must end in .safetensors or .pth.tar"),
        ("tools.fuzz", ["--count", "0"], "count=0 is not allowed"),
        ("src.report", ["--output", "report.pdf"], "a path ending in .html"),
        slow("src.study", ["fig9"], "fig9"),
        slow("src.train", ["+experiment=jointiq", "lmbda=2"], "lmbda=2 is not allowed"),
        ("src.train", ["+experiment=jointiq_full", "stage=all", "optim.compile=maybe"], "optim.compile='maybe'"),
        slow("src.train", ["scale=paper"], "scale=paper with data=sample"),
        slow("src.train", ["rerun=missing"], "rerun=missing: no config.yaml"),
    ],
)
def test_mistakes(fresh: Fresh, module: str, arguments: list[str], told: str) -> None:
    code, imported, said = fresh.run(module, *arguments)
    assert (code, imported) == (2, [])
    assert told in said


@pytest.mark.parametrize(
    ("module", "override"), [("src.anchors", "codecs=[nope]"), ("src.evaluate", "checkpoint=missing.ckpt")]
)
def test_mistakes_of_values(fresh: Fresh, module: str, override: str) -> None:
    code, imported, said = fresh.run(module, override, "output=results/out.json")
    assert (code, imported) == (2, [])
    assert override.split("=")[0] in said


def test_unknown_options_of_a_training(fresh: Fresh) -> None:
    code, imported, said = fresh.run("src.train", "+experiment=nope")
    assert (code, imported) == (2, [])
    assert said.count("\n") == 1 and "Could not find 'experiment/nope'" in said


def test_values_of_a_training(fresh: Fresh) -> None:
    code, imported, said = fresh.run("src.train", "+experiment=jointiq", "scale=demo", "--cfg", "job", "--resolve")
    assert (code, imported) == (0, [])
    assert "experiment_name: jointiq" in said


def test_header_of_a_file(fresh: Fresh) -> None:
    code, imported, said = fresh.run("src.codec", "info", "tests/golden/full-1x1.jiq")
    assert (code, imported) == (0, [])
    assert "1x1 pixels" in said and "wavefront" in said


def test_status_of_runs(fresh: Fresh, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.yaml").write_text("lmbda: 0.1\n")
    code, imported, said = fresh.run("src.status", tmp_path / "run")
    assert (code, imported) == (0, [])
    assert "waiting" in said


def test_bd_rates_of_the_project(fresh: Fresh, tmp_path: Path) -> None:
    code, imported, said = fresh.run("src.bdrate", folder=tmp_path)
    assert code == 0 and not {"torch", "compressai"} & set(imported)
    assert "weights/" in said and "Table 2" in said


def test_bd_rates(fresh: Fresh, tmp_path: Path) -> None:
    for name, gain in (("anchor", 0.0), ("test", 1.0)):
        points = {"bpp": [0.1, 0.2, 0.4, 0.8], "psnr-rgb": [value + gain for value in (28.0, 30.0, 32.0, 34.0)]}
        (tmp_path / f"{name}.json").write_text(f'{{"name": "{name}", "results": {points}}}'.replace("'", '"'))
    code, imported, said = fresh.run("src.bdrate", tmp_path / "anchor.json", tmp_path / "test.json", "--metric", "psnr")
    assert code == 0 and not {"torch", "compressai"} & set(imported)
    assert "-" in said
