"""docs/extending.md is followed to the letter in a copy of the project."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from jointiq.data.sample import sample_images

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")
CHAPTERS = dict(re.findall(r"^## (.+?)\n(.*?)(?=^## |\Z)", PAGE, flags=re.MULTILINE | re.DOTALL))


def files_of(chapter: str) -> dict[str, str]:
    """The files that a chapter has one write: path and content."""
    pattern = r"^`([\w/.]+)`[^\n]*:\n\n```(?:python|yaml)\n(.*?)^```"
    return dict(re.findall(pattern, CHAPTERS[chapter], flags=re.MULTILINE | re.DOTALL))


def commands_of(chapter: str) -> list[str]:
    blocks = re.findall(r"^```sh\n(.*?)^```", CHAPTERS[chapter], flags=re.MULTILINE | re.DOTALL)
    return [line for block in blocks for line in block.splitlines()]


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    for folder in ("src", "conf"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__"))
    for split in ("train", "val", "test"):
        (tmp_path / f"{split}.txt").write_text("\n".join(map(str, sample_images(split))))
    return tmp_path


def python(folder: Path, *arguments: str) -> str:
    """What ``python ARGUMENTS`` prints in the copy, with the copy's package."""
    environment = {**os.environ, "PYTHONPATH": str(folder / "src")}
    command = [sys.executable, *arguments]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def run(folder: Path, line: str, *more: str) -> str:
    words = shlex.split(line)
    assert words[:2] == ["python", "-m"]
    return python(folder, *words[1:], *more)


def write(folder: Path, chapter: str) -> None:
    files = files_of(chapter)
    assert {Path(path).suffix for path in files} == {".py", ".yaml"} and len(files) == 2
    for path, content in files.items():
        # A part is added, nothing that exists is touched.
        assert not (folder / path).exists()
        (folder / path).write_text(content, encoding="utf-8")


def test_the_page_shows_the_kinds_of_parts() -> None:
    assert list(CHAPTERS) == ["An enhancer", "A transform", "An entropy model", "An optimizer", "A data set"]
    assert all(len(commands_of(chapter)) == 1 for chapter in CHAPTERS)


def test_an_enhancer_is_added_as_the_page_says(copy: Path) -> None:
    write(copy, "An enhancer")
    code = """
import torch
from jointiq.configs import compose
from jointiq.enhancers import build_enhancer
network = build_enhancer(compose("train", ["enhancer=one_conv", "scale=paper"]).enhancer)
print(tuple(network(torch.zeros(1, 3, 5, 7)).shape), sum(p.numel() for p in network.parameters()))
"""
    # 5 * 5 * 3 * 3 weights and 3 biases.
    assert python(copy, "-c", code) == "(1, 3, 5, 7) 228\n"


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("chapter", CHAPTERS)
def test_what_is_added_trains_codes_and_is_exported(copy: Path, chapter: str) -> None:
    write(copy, chapter)
    (command,) = commands_of(chapter)
    assert "trained at step 5" in run(copy, command, "paths.run_dir=run", "trainer=cpu")
    run(copy, "python -m src.export run/checkpoints/last.ckpt model.safetensors")
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (37, 50, 3), dtype=np.uint8)).save(copy / "in.png")
    assert "latents exact" in run(copy, "python -m src.codec verify in.png --checkpoint model.safetensors")
