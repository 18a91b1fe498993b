"""Command lines in processes that have imported next to nothing, without a new interpreter for each."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
#: Each takes seconds to import.
HEAVY = ("torch", "compressai", "lightning", "pandas", "matplotlib")

#: Runs what it reads as ``python -m`` does, in a process forked from one that has imported and read what all need.
PROGRAM = f"""
import json, os, pathlib, runpy, sys
import jointiq.configs, jointiq.console, jointiq.typed, tests.composing
tests.composing.ConfigRepository.load_config = tests.composing.reading_once()
for name in "anchors", "complexity", "evaluate", "train":
    jointiq.configs.compose(name)
for line in sys.stdin:
    module, arguments, folder, place = json.loads(line)
    if os.fork():
        os.wait()
        print(flush=True)
        continue
    os.chdir(folder)
    said = os.open(place + "/said.txt", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(said, 1), os.dup2(said, 2)
    sys.argv, code = ["", *arguments], 0
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    except SystemExit as exit:
        code = exit.code or 0
    except BaseException as error:
        code = "traceback: " + repr(error)
    sys.stdout.flush()
    ended = [code, [name for name in {HEAVY} if name in sys.modules]]
    pathlib.Path(place, "ended.json").write_text(json.dumps(ended))
    os._exit(0)
"""


class Fresh:
    """The process that starts them.

    Args:
        place: a folder for what they say.
    """

    def __init__(self, place: Path) -> None:
        self.place = place
        self.process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM],
            cwd=ROOT,
            env={"PYTHONPATH": f"{ROOT / 'src'}:{ROOT}", "COLUMNS": "80"},
            text=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )

    def run(self, module: str, *arguments: str | Path, folder: Path = ROOT) -> tuple[int, list[str], str]:
        """Exit code of ``python -m MODULE ARGUMENTS``, what of :data:`HEAVY` it has imported, and all that it said."""
        stdin, stdout = self.process.stdin, self.process.stdout
        assert stdin is not None and stdout is not None
        print(json.dumps([module, list(map(str, arguments)), str(folder), str(self.place)]), file=stdin, flush=True)
        assert stdout.readline() == "\n"
        code, imported = json.loads((self.place / "ended.json").read_text())
        (self.place / "ended.json").unlink()
        return code, imported, (self.place / "said.txt").read_text()

    def close(self) -> None:
        """End the process."""
        self.process.communicate()
