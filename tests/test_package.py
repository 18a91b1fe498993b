"""The installed package: what the wheel holds, and what works without the checkout; the list of commands."""

from __future__ import annotations

import os
import pkgutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from PIL import Image

from jointiq import commands
from jointiq.__main__ import COMMANDS, usage

ROOT = Path(__file__).resolve().parents[1]


def test_the_list_of_commands() -> None:
    listed = [name for group in COMMANDS.values() for name in group]
    modules = {module.name for module in pkgutil.iter_modules(commands.__path__)} - {"codec", "encoding", "file_pairs"}
    assert set(listed) == modules | {"encode", "decode", "verify", "info"} and len(set(listed)) == len(listed)
    assert max(map(len, usage().splitlines())) <= 80


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [([], 0, "Code images:"), (["--help"], 0, "Code images:"), (["nonsense"], 2, "nonsense: no such command"),
     (["info", "missing.jiq"], 2, "missing.jiq"), (["encode"], 2, "the following arguments are required")],
)  # fmt: skip
def test_jointiq(arguments: list[str], code: int, told: str) -> None:
    done = subprocess.run([sys.executable, "-m", "jointiq", *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == code and told in done.stdout + done.stderr and "Traceback" not in done.stderr


@pytest.mark.parametrize("path", sorted(path.name for path in (ROOT / "src").glob("*.py") if path.stem[0] != "_"))
def test_what_is_typed_in_a_checkout(path: str) -> None:
    text = (ROOT / "src" / path).read_text(encoding="utf-8")
    assert f"``python -m src.{path.removesuffix('.py')}" in text.splitlines()[0] and len(text.splitlines()) < 10


THREE_LINES = """
import jointiq, src, sys
model = jointiq.load("jointiq-mse"); data = jointiq.encode(model, __import__("PIL.Image").Image.open("in.png"))
picture = jointiq.decode(data)
assert picture.size == (77, 50)
print(jointiq.__file__, src.__file__)
"""


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_the_wheel(tmp_path: Path, picture) -> None:
    build = "import sys; from hatchling.build import build_wheel; build_wheel(sys.argv[1])"
    subprocess.run([sys.executable, "-c", build, tmp_path], cwd=ROOT, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        archive.extractall(tmp_path / "site")
    assert {name.split("/")[0].split("-")[0] for name in names} == {"jointiq", "hydra_plugins"}
    for needed in ("py.typed", "conf/train.yaml", "conf/experiment/jointiq.yaml", "weights/index.json"):
        assert f"jointiq/{needed}" in names
    for path in (ROOT / "weights").glob("*.safetensors"):
        assert f"jointiq/weights/{path.name}" in names

    # Another project, which has a folder `src` of its own.
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "__init__.py").touch()
    Image.fromarray(picture(50, 77)).save(tmp_path / "in.png")
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "site")}

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-W", "ignore", *arguments]
        return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)

    done = run("-c", THREE_LINES)
    assert done.stdout.split() == [
        str(tmp_path / "site" / "jointiq" / "__init__.py"),
        str(tmp_path / "src/__init__.py"),
    ]
    assert run("-m", "jointiq", "encode", "in.png", "out.jiq", "--quality", "1").returncode == 0
    assert "jointiq-mse" in run("-m", "jointiq", "info", "out.jiq").stdout
    assert "usage: jointiq encode" in run("-m", "jointiq", "encode", "--help").stdout
    assert "experiment_name: jointiq" in run("-m", "jointiq", "train", "+experiment=jointiq", "--cfg", "job").stdout
    done = run("-m", "jointiq", "study", "table2")
    assert done.returncode == 2 and "in a checkout" in done.stderr and "Traceback" not in done.stderr
