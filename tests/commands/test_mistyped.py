"""Mistyped command lines: each is refused in one line, and nothing is written, trained or even imported for it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.test_startup import HEAVY, ROOT

pytestmark = pytest.mark.timeout(600)

ONLY_NEAREST = "nothing reads this key; nearest: "

#: The module, what is typed, and a part of what is answered.
REFUSED = [
    ("train", ["+lmda=0.5"], f"lmda: {ONLY_NEAREST}lmbda"),
    ("train", ["lmda=0.5"], "lmda: no such key; nearest: lmbda"),
    ("train", ["++seeed=1"], f"seeed: {ONLY_NEAREST}seed"),
    ("train", ["+max_steps=3"], f"max_steps: {ONLY_NEAREST}"),
    ("train", ["+data.foo=1"], "data.foo: nothing reads this key"),
    ("train", ["+data.test_dir=x"], "data.test_dir: nothing reads this key"),
    ("train", ["+trainer.max_stpes=3"], f"trainer.max_stpes: {ONLY_NEAREST}trainer.max_steps"),
    ("train", ["+trainer.gradient_clip=1"], "trainer.gradient_clip_val"),
    ("train", ["+callbacks.checkpoint.kep=3"], f"callbacks.checkpoint.kep: {ONLY_NEAREST}callbacks.checkpoint.keep"),
    ("train", ["+callbacks.mine.arg=1"], "callbacks.mine._target_"),
    ("train", ["+logger.csv.foldr=x"], f"logger.csv.foldr: {ONLY_NEAREST}logger.csv.folder"),
    ("train", ["+scale.precison=32"], f"scale.precison: {ONLY_NEAREST}scale.precision"),
    ("train", ["+sweep.job=2"], f"sweep.job: {ONLY_NEAREST}sweep.jobs"),
    ("train", ["+paths.result=x"], f"paths.result: {ONLY_NEAREST}paths.results"),
    ("train", ["+distortion.nam=mse"], f"distortion.nam: {ONLY_NEAREST}distortion.name"),
    ("train", ["+stage.cop=64"], f"stage.cop: {ONLY_NEAREST}stage.crop"),
    ("train", ["+rates.tabel=1"], f"rates.tabel: {ONLY_NEAREST}rates.table"),
    ("train", ["-m", "+lmda=0.5,0.4"], f"lmda: {ONLY_NEAREST}lmbda"),
    ("train", ["-m", "+experiment=nope,jointiq"], "Could not find 'experiment/nope'"),
    ("train", ["+experiment=jointq"], "nearest: jointiq"),
    ("train", ["enhancer=grdn_ligth"], "nearest: grdn_light"),
    ("train", ["experiment=jointiq"], "use +experiment=jointiq"),
    ("train", ["lmbda=0.5,0.3"], "-m (a run each)"),
    ("train", ["lmbda"], "lmbda: no KEY=VALUE"),
    ("train", ["~lmbda"], "~lmbda: this key is needed"),
    ("train", ["logger=null"], "allowed: one of csv, none, tensorboard, wandb"),
    ("train", ["trainer=null"], "trainer=null is no choice"),
    ("train", ["tags=a"], "tags=[a,b]"),
    ("train", ["hydra.run.dir=x"], "paths.run_dir=DIR"),
    ("train", ["hydra/launcher=joblib"], "pip install hydra-joblib-launcher"),
    ("train", ["hydra/launcher=rq"], "pip install hydra-rq-launcher"),
    ("train", ["-m"], "-m alone"),
    ("train", ["-m", "--cfg", "job"], "-m and --cfg do not go together"),
    ("train", ["--resolve"], "--cfg job"),
    ("train", ["--confg", "job"], "unrecognized arguments: --confg"),
    ("train", ["--config-name", "trian"], "Cannot find primary config 'trian'"),
    ("train", ["data=folder", "data.train_dir=${x}"], "Interpolation key 'x' not found"),
    ("train", ["data=folder", "data.train_dir=/a=b"], """'data.train_dir="/a=b"'"""),
    ("evaluate", ["+foo=1"], "foo: nothing reads this key"),
    ("evaluate", ["-m", "checkpoint=a,b"], "-m is for python -m src.train"),
    ("evaluate", ["checkpiont=a"], "checkpiont: no such key; nearest: checkpoint"),
    ("evaluate", ["data=folder", "data.test_dir=${x}"], "Interpolation key 'x' not found"),
    ("evaluate", ["checkpoint=/tmp/é"], """'checkpoint="/tmp/é"'"""),
    ("anchors", ["codec=jpeg"], "codec: no such key; nearest: codecs"),
    ("anchors", ["output=it's"], """'output="it'"""),
    ("anchors", ["output=a,b"], """'output="a,b"'"""),
    ("anchors", ["hydra.run.dir=x"], "allowed: output=DIR"),
    ("complexity", ["+siz=1x1"], f"siz: {ONLY_NEAREST}size"),
    ("complexity", ["checkpoint=a[b"], """'checkpoint="a[b"'"""),
    ("complexity", ["output=OUT.txt"], "ending in .json"),
    ("bdrate", ["--metrics", "psnr,ssim"], "error"),
    ("bdrate", ["missing.json", "missing.json"], "missing.json"),
    ("codec", ["encod", "a.png"], "invalid choice: 'encod'"),
    ("codec", ["encode", "missing.png", "a.jiq"], "missing.png"),
    ("status", ["missing"], "missing"),
    ("study", ["tabel2"], "tabel2"),
    ("export", ["missing.ckpt", "a.safetensors"], "missing.ckpt"),
    ("report", ["--outptu", "a.html"], "--outptu"),
    ("demo", ["--output"], "--output"),
    ("prepare", ["missing", "--output", "patches"], "missing"),
]


#: They look at the file by what reads it.
READS_FIRST = ("export", "prepare")

#: Runs every command line in a process of its own, forked from one that has imported what all of them need.
PROGRAM = f"""
import json, os, pathlib, runpy, sys
import jointiq.console, jointiq.typed
lines, place = json.loads(sys.argv[1]), pathlib.Path(sys.argv[2])
for number, (name, typed) in enumerate(lines):
    folder = place / str(number)
    folder.mkdir()
    if os.fork():
        os.wait()
        continue
    os.chdir(folder)
    said = os.open(place / f"{{number}}.txt", os.O_WRONLY | os.O_CREAT)
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
    (place / f"{{number}}.json").write_text(json.dumps(ended))
    os._exit(0)
"""


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("mistyped")
    lines = json.dumps([(name, typed) for name, typed, _ in REFUSED])
    environment = {"PYTHONPATH": f"{ROOT / 'src'}:{ROOT}", "COLUMNS": "120"}
    subprocess.run([sys.executable, "-c", PROGRAM, lines, place], cwd=ROOT, env=environment, check=True)
    return place


@pytest.mark.parametrize("number", range(len(REFUSED)), ids=[f"{name} {' '.join(typed)}" for name, typed, _ in REFUSED])
def test_what_is_mistyped_is_refused_in_one_line(answers: Path, number: int) -> None:
    command, _, told = REFUSED[number]
    code, imported = json.loads((answers / f"{number}.json").read_text())
    lines = (answers / f"{number}.txt").read_text().strip().splitlines()
    assert code == 2, lines
    assert told in lines[-1]
    if lines[0].startswith("usage:"):
        assert sum("error:" in line for line in lines) == 1
    else:
        assert len(lines) == 1 and lines[0].startswith("error: ")
    assert command in READS_FIRST or not {"torch", "compressai", "lightning"} & set(imported)
    assert list((answers / str(number)).iterdir()) == []


def test_there_are_forty() -> None:
    assert len(REFUSED) >= 40
    assert {name for name, _, _ in REFUSED} >= {
        "train", "evaluate", "anchors", "complexity", "bdrate", "codec", "status", "study", "export", "report", "demo",
        "prepare",
    }  # fmt: skip
