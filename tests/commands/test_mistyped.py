"""Mistyped command lines: each is refused in one line, and nothing is written, trained or even imported for it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fresh import Fresh
from tests.marks import slow

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
    ("train", ["-m", "lmbda=0.5,0.4", "trainer.maxsteps=5"], "no such key; nearest: trainer.max_steps"),
    ("train", ["-m", "+experiment=glob(abl*)", "sweep.job=2"], "no such key; nearest: sweep.jobs"),
    ("train", ["-m", "seed=0,1", "enhancr=vdsr"], "no such key; nearest: enhancer"),
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
    ("train", ["--experiment", "jointiq"], "such as +experiment=jointiq"),
    ("report", ["--image", "x"], "unrecognized arguments: --image"),
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


def words(value: str | list[str]) -> str:
    return value if isinstance(value, str) else " ".join(value)


@pytest.mark.parametrize(("command", "typed", "told"), REFUSED, ids=words)
def test_what_is_mistyped_is_refused_in_one_line(
    fresh: Fresh, tmp_path: Path, command: str, typed: list[str], told: str
) -> None:
    code, imported, said = fresh.run(f"src.{command}", *typed, folder=tmp_path)
    lines = said.strip().splitlines()
    assert code == 2, lines
    assert told in lines[-1]
    assert len(lines) == 1 and lines[0].startswith("error: ")
    assert command in READS_FIRST or not {"torch", "compressai", "lightning"} & set(imported)
    assert list(tmp_path.iterdir()) == []


def test_there_are_forty() -> None:
    assert len(REFUSED) >= 40
    assert {getattr(one, "values", one)[0] for one in REFUSED} >= {
        "train", "evaluate", "anchors", "complexity", "bdrate", "codec", "status", "study", "export", "report", "demo",
        "prepare",
    }  # fmt: skip
