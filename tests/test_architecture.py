"""Arrows point one way: no file imports one of a higher room, and no two import each other, for types neither."""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest
import yaml

import jointiq

PACKAGE = Path(jointiq.__file__).parent
#: From the lowest to the highest; a file imports from its own room and from those before it.
ROOMS = (
    "bitstream", "layers", "enhancers", "entropy_models", "models", "data", "coding", "evaluation", "runs", "training",
    "sweeps", "tracking", "studies", "interop", "commands",
)  # fmt: skip
#: Files of no room, below them all.
GROUND = ("command_line", "configs", "console", "errors", "files", "parts", "runtime", "typed")
#: The package's own two, above them all: what `import jointiq` gives, and its command line.
TOP = ("", "__main__")
#: Packages that only some may import: the files below, and nothing else.
OUTSIDE = {
    "wandb": {"tracking"},
    "wandb_workspaces": {"tracking"},
    "lightning": {"data", "runs", "training", "sweeps", "tracking"},
    "hydra": {"command_line", "configs", "typed", "runs", "training", "sweeps", "studies", "commands"},
}
#: All of W&B is reached by ``_target_``, but for two commands that are about nothing else.
TRACKING = ("tracking", "commands.bdrate", "commands.dashboard")


def name_of(file: Path) -> str:
    """``layers.gdn``; ``layers`` for the room's own file, and nothing for the package's."""
    return ".".join(file.relative_to(PACKAGE).with_suffix("").parts).removesuffix("__init__").removesuffix(".")


FILES = {name_of(file): file for file in PACKAGE.rglob("*.py")}


def imported(name: str) -> Iterator[str]:
    """All that a file imports, at its top or later, for types too: ``torch``, ``jointiq.layers.gdn``."""
    for node in ast.walk(ast.parse(FILES[name].read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name}: imports are absolute"
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                yield whole if whole.removeprefix("jointiq.") in FILES else str(node.module)


ARROWS = {
    name: {one.removeprefix("jointiq").removeprefix(".") for one in imported(name) if one.split(".")[0] == "jointiq"}
    for name in FILES
}


def height(name: str) -> int:
    room = name.split(".")[0]
    return -1 if room in GROUND else len(ROOMS) if room in TOP else ROOMS.index(room)


def test_every_file_is_in_a_room() -> None:
    assert {name.split(".")[0] for name in FILES} == {*ROOMS, *GROUND, *TOP}


def test_no_arrow_points_back() -> None:
    back = {(name, other) for name, others in ARROWS.items() for other in others if height(other) > height(name)}
    assert back == set()


def test_no_files_import_each_other() -> None:
    graph = {name: set(others) for name, others in ARROWS.items()}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


@pytest.mark.parametrize("package", OUTSIDE)
def test_what_only_some_rooms_import(package: str) -> None:
    importers = {name for name in FILES if any(one.split(".")[0] == package for one in imported(name))}
    assert {name.split(".")[0] for name in importers} <= OUTSIDE[package], importers


def test_tracking_is_reached_by_target() -> None:
    importers = {name for name, others in ARROWS.items() if any(one.startswith("tracking") for one in others)}
    assert {name for name in importers if not name.startswith(TRACKING)} == set()


def test_the_package_knows_no_tools() -> None:
    foreign = {
        (name, one) for name in FILES for one in imported(name) if one.split(".")[0] in ("tools", "src", "tests")
    }
    assert foreign == set()


def test_contributors_are_told_of_all_rooms_in_their_order() -> None:
    text = (PACKAGE.parents[1] / "CONTRIBUTING.md").read_text(encoding="utf-8")
    assert re.findall(r"^\| `(\w+)` \|", text, re.MULTILINE) == list(ROOMS)


def test_the_citation_has_the_version_of_the_package() -> None:
    root = PACKAGE.parents[1]
    cited = yaml.safe_load((root / "CITATION.cff").read_text(encoding="utf-8"))
    package = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert cited["version"] == package["version"] and cited["license"] == package["license"]
