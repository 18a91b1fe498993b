"""Mistyped command lines: each is refused in one line, and nothing is written, trained or even imported for it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.marks import slow
from tests.test_startup import HEAVY, ROOT

pytestmark = pytest.mark.timeout(600)

ONLY_NEAREST = "nothing reads this key; nearest: "

#: The module, what is typed, and a part of what is answered; a mistake of each kind and command is quick.
REFUSED = [
    ("train", ["+lmda=0.5"], f"lmda: {ONLY_NEAREST}lmbda"),
    ("train", ["lmda=0.5"], "lmda: no such key; nearest: lmbda"),
    slow("train", ["++seeed=1"], f"seeed: {ONLY_NEAREST}seed"),
    slow("train", ["+max_steps=3"], f"max_steps: {ONLY_NEAREST}"),
    slow("train", ["+data.foo=1"], "data.foo: nothing reads this key"),
    slow("train", ["+data.test_dir=x"], "data.test_dir: nothing reads this key"),
    slow("train", ["+trainer.max_stpes=3"], f"trainer.max_stpes: {ONLY_NEAREST}trainer.max_steps"),
    slow("train", ["+trainer.gradient_clip=1"], "trainer.gradient_clip_val"),
    slow(
        "train", ["+callbacks.checkpoint.kep=3"], f"callbacks.checkpoint.kep: {ONLY_NEAREST}callbacks.checkpoint.keep"
    ),
    ("train", ["+callbacks.mine.arg=1"], "callbacks.mine._target_"),
    slow("train", ["+logger.csv.foldr=x"], f"logger.csv.foldr: {ONLY_NEAREST}logger.csv.folder"),
    slow("train", ["+scale.precison=32"], f"scale.precison: {ONLY_NEAREST}scale.precision"),
    slow("train", ["+sweep.job=2"], f"sweep.job: {ONLY_NEAREST}sweep.jobs"),
    slow("train", ["+paths.result=x"], f"paths.result: {ONLY_NEAREST}paths.results"),
    slow("train", ["+distortion.nam=mse"], f"distortion.nam: {ONLY_NEAREST}distortion.name"),
    slow("train", ["+stage.cop=64"], f"stage.cop: {ONLY_NEAREST}stage.crop"),
    slow("train", ["+rates.tabel=1"], f"rates.tabel: {ONLY_NEAREST}rates.table"),
    ("train", ["-m", "+lmda=0.5,0.4"], f"lmda: {ONLY_NEAREST}lmbda"),
    slow("train", ["-m", "+experiment=nope,jointiq"], "Could not find 'experiment/nope'"),
    ("train", ["+experiment=jointq"], "nearest: jointiq"),
    slow("train", ["enhancer=grdn_ligth"], "nearest: grdn_light"),
    ("train", ["experiment=jointiq"], "use +experiment=jointiq"),
    ("train", ["lmbda=0.5,0.3"], "-m (a run each)"),
    ("train", ["lmbda"], "lmbda: no KEY=VALUE"),
    ("train", ["~lmbda"], "~lmbda: this key is needed"),
    ("train", ["logger=null"], "allowed: one of csv, none, tensorboard, wandb"),
    slow("train", ["trainer=null"], "trainer=null is no choice"),
    slow("train", ["tags=a"], "tags=[a,b]"),
    ("train", ["hydra.run.dir=x"], "paths.run_dir=DIR"),
    ("train", ["hydra/launcher=joblib"], "pip install hydra-joblib-launcher"),
    slow("train", ["hydra/launcher=rq"], "pip install hydra-rq-launcher"),
    ("train", ["-m"], "-m alone"),
    slow("train", ["-m", "--cfg", "job"], "-m and --cfg do not go together"),
    slow("train", ["--resolve"], "--cfg job"),
    ("train", ["--confg", "job"], "unrecognized arguments: --confg"),
    slow("train", ["--config-name", "trian"], "Cannot find primary config 'trian'"),
    ("train", ["data=folder", "data.train_dir=${x}"], "Interpolation key 'x' not found"),
    ("train", ["data=folder", "data.train_dir=/a=b"], """'data.train_dir="/a=b"'"""),
    slow("evaluate", ["+foo=1"], "foo: nothing reads this key"),
    ("evaluate", ["-m", "checkpoint=a,b"], "-m is for python -m src.train"),
    ("evaluate", ["checkpiont=a"], "checkpiont: no such key; nearest: checkpoint"),
    slow("evaluate", ["data=folder", "data.test_dir=${x}"], "Interpolation key 'x' not found"),
    slow("evaluate", ["checkpoint=/tmp/é"], """'checkpoint="/tmp/é"'"""),
    slow("anchors", ["codec=jpeg"], "codec: no such key; nearest: codecs"),
    ("anchors", ["output=it's"], """'output="it'"""),
    slow("anchors", ["output=a,b"], """'output="a,b"'"""),
    slow("anchors", ["hydra.run.dir=x"], "allowed: output=DIR"),
    ("complexity", ["+siz=1x1"], f"siz: {ONLY_NEAREST}size"),
    slow("complexity", ["checkpoint=a[b"], """'checkpoint="a[b"'"""),
    slow("complexity", ["output=OUT.txt"], "ending in .json"),
    ("bdrate", ["--metrics", "psnr,ssim"], "error"),
    slow("bdrate", ["missing.json", "missing.json"], "missing.json"),
    ("codec", ["encod", "a.png"], "invalid choice: 'encod'"),
    slow("codec", ["encode", "missing.png", "a.jiq"], "missing.png"),
    ("status", ["missing"], "missing"),
    ("study", ["tabel2"], "tabel2"),
    slow("export", ["missing.ckpt", "a.safetensors"], "missing.ckpt"),
    ("report", ["--outptu", "a.html"], "--outptu"),
    ("demo", ["--output"], "--output"),
    slow("prepare", ["missing", "--output", "patches"], "missing"),
]


#: They look at the file by what reads it.
READS_FIRST = ("export", "prepare")

#: Runs every command line that it reads in a process of its own, forked from one that has imported what all need.
PROGRAM = f"""
import json, os, pathlib, runpy, sys
import jointiq.console, jointiq.typed
for line in sys.stdin:
    name, typed, place = json.loads(line)
    place = pathlib.Path(place)
    if os.fork():
        os.wait()
        print(flush=True)
        continue
    os.chdir(place / "folder")
    said = os.open(place / "said.txt", os.O_WRONLY | os.O_CREAT)
    os.dup2(said, 1), os.dup2(said, 2)
    sys.argv, code = ["", *typed], 0
    try:
        runpy.run_module(f"src.{{name}}", run_name="__main__", alter_sys=True)
    except SystemExit as exit:
        code = exit.code or 0
    except BaseException as error:
        print("traceback:", repr(error))
    sys.stdout.flush()
    ended = [code, [name for name in {HEAVY} if name in sys.modules]]
    (place / "ended.json").write_text(json.dumps(ended))
    os._exit(0)
"""


@pytest.fixture(scope="module")
def commands() -> Iterator[subprocess.Popen[str]]:
    """The process that answers: it takes a line and gives one when the command has ended."""
    environment = {"PYTHONPATH": f"{ROOT / 'src'}:{ROOT}", "COLUMNS": "120"}
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM],
        cwd=ROOT, env=environment, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    ) as process:  # fmt: skip
        yield process
        assert process.stdin is not None
        process.stdin.close()


def words(value: str | list[str]) -> str:
    return value if isinstance(value, str) else " ".join(value)


@pytest.mark.parametrize(("command", "typed", "told"), REFUSED, ids=words)
def test_what_is_mistyped_is_refused_in_one_line(
    commands: subprocess.Popen[str], tmp_path: Path, command: str, typed: list[str], told: str
) -> None:
    (tmp_path / "folder").mkdir()
    assert commands.stdin is not None and commands.stdout is not None
    print(json.dumps([command, typed, str(tmp_path)]), file=commands.stdin, flush=True)
    assert commands.stdout.readline() == "\n"
    code, imported = json.loads((tmp_path / "ended.json").read_text())
    lines = (tmp_path / "said.txt").read_text().strip().splitlines()
    assert code == 2, lines
    assert told in lines[-1]
    if lines[0].startswith("usage:"):
        assert sum("error:" in line for line in lines) == 1
    else:
        assert len(lines) == 1 and lines[0].startswith("error: ")
    assert command in READS_FIRST or not {"torch", "compressai", "lightning"} & set(imported)
    assert list((tmp_path / "folder").iterdir()) == []


def test_there_are_forty() -> None:
    assert len(REFUSED) >= 40
    assert {getattr(one, "values", one)[0] for one in REFUSED} >= {
        "train", "evaluate", "anchors", "complexity", "bdrate", "codec", "status", "study", "export", "report", "demo",
        "prepare",
    }  # fmt: skip
