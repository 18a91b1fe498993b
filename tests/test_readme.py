"""What the README and its pages say must hold: commands are understood, files and config keys exist."""

import importlib
import importlib.util
import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf

from jointiq.errors import UserError

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
DOCS = {path.stem: path.read_text(encoding="utf-8") for path in sorted((ROOT / "docs").glob("*.md"))}
#: Pages whose commands are typed as they stand there.
PAGES = README + "".join(DOCS[name] for name in ("codec", "comparing", "evaluation"))
HYDRA_COMMANDS = ("train", "evaluate", "anchors", "complexity")
# They read nothing.
LISTS = ("python -m src.study",)


def commands(start: str) -> list[str]:
    blocks = re.findall(r"^```sh\n(.*?)^```", PAGES, flags=re.MULTILINE | re.DOTALL)
    return [line for block in blocks for line in block.splitlines() if line.startswith(start)]


def module_commands(hydra: bool) -> list[str]:
    lines = commands("python -m src.")
    return [line for line in lines if (line.split()[2].removeprefix("src.") in HYDRA_COMMANDS) == hydra]


def compose_config(name: str, overrides: list[str]) -> DictConfig:
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        return compose(name, overrides)


def test_the_readme_shows_the_commands_a_user_needs() -> None:
    shown = {line.split()[2] for line in commands("python -m src.")}
    assert {"src.train", "src.codec", "src.evaluate", "src.bdrate"} <= shown
    assert {"make demo", "make test", "make bdrate"} <= set(commands("make"))
    first = README.split("## Commands")[0]
    for line in (
        "python -m src.train +experiment=ablation_no_gc",
        "python -m src.train -m +experiment=jointiq,ablation_no_gc lmbda=0.5,0.23,0.12,0.06",
        "python -m src.train -m '+experiment=glob(ablation_*)' logger=wandb",
    ):
        assert f"\n{line}\n" in first


def test_the_readme_names_every_page() -> None:
    assert set(re.findall(r"\(docs/([a-z]+)\.md\)", README)) == set(DOCS)


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md", *(f"docs/{name}.md" for name in DOCS)])
def test_links_lead_to_files_and_headings(name: str) -> None:
    text = (ROOT / name).read_text(encoding="utf-8")
    for link in re.findall(r"\]\(([^)]+)\)", re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)):
        if link.startswith("https:"):
            continue
        path, _, heading = link.partition("#")
        target = (ROOT / name).parent / path if path else ROOT / name
        assert target.exists(), f"{name}: {link}"
        if heading:
            titles = re.findall(r"^#+ (.+)$", target.read_text(encoding="utf-8"), flags=re.MULTILINE)
            anchors = [re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles]
            assert heading in anchors, f"{name}: {link}"


@pytest.mark.parametrize("line", commands("make"))
def test_make_targets_exist(line: str) -> None:
    words = shlex.split(line)
    done = subprocess.run([*words, "--dry-run"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("typed", ["RESULT=results", "results=results"])
def test_make_refuses_a_mistyped_name(typed: str) -> None:
    done = subprocess.run(["make", "--dry-run", "bdrate", typed], cwd=ROOT, capture_output=True, text=True)
    name = typed.partition("=")[0]
    assert done.returncode == 2 and f"{name}: no such variable; allowed: " in done.stderr


def test_make_runs_modules_that_exist() -> None:
    modules = set(re.findall(r"-m (src\.[a-z_.]+)", (ROOT / "Makefile").read_text(encoding="utf-8")))
    assert "src.demo" in modules
    assert [name for name in sorted(modules) if importlib.util.find_spec(name) is None] == []


def test_make_help_lists_every_target() -> None:
    targets = re.findall(r"^\.PHONY: (.+)$", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE)
    done = subprocess.run(
        ["make", "--no-print-directory", "help"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    listed = re.findall(r"^  ([a-z-]+) +\S", done.stdout, flags=re.MULTILINE)
    assert listed == targets


@pytest.mark.parametrize("line", module_commands(hydra=True))
def test_hydra_commands_compose(line: str) -> None:
    words = shlex.split(line)
    name = words[2].removeprefix("src.")
    importlib.import_module(words[2])  # registers the resolvers
    overrides = [word for word in words[3:] if word not in ("-m", "--cfg", "job", "--resolve")]
    single = []
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        for override in OverridesParser.create(GlobalHydra.instance().config_loader()).parse_overrides(overrides):
            if override.is_sweep_override():
                assert "-m" in words, f"{override.input_line} is a sweep, but the command has no -m"
                choice = next(override.sweep_string_iterator())
                single.append(f"{override.input_line.partition('=')[0]}={choice}")
            else:
                single.append(override.input_line)
    config = compose_config(name, single)
    if name == "train":
        OmegaConf.to_container(config, resolve=True)


@pytest.mark.parametrize("line", module_commands(hydra=False))
def test_other_commands_fail_only_for_their_missing_files(
    line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = shlex.split(line)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", words[2:])
    main = importlib.import_module(words[2]).main
    if line in LISTS:
        assert main() == 0
        return
    with pytest.raises(UserError, match=r"\.(png|jiq|json)|CKPT|results/|(DIR|results): no such"):
        main()


def table_rows(page: str, heading: str) -> list[list[str]]:
    section = re.split(r"\n##", DOCS[page].split(f"# {heading}\n", 1)[1], maxsplit=1)[0]
    rows = [line.strip("|").split("|") for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in row] for row in rows[2:]]


@pytest.mark.parametrize("row", table_rows("systems", "From the paper to the code"), ids=lambda row: row[0])
def test_files_and_config_keys_of_the_table_exist(row: list[str]) -> None:
    element, keys, files = row
    for path in re.findall(r"`([^`]+)`", files):
        assert (ROOT / path).is_file(), f"{element}: {path} is not there"
    names = re.findall(r"`([^`]+)`", keys)
    assert names or keys == "always on"
    importlib.import_module("src.train")
    config = compose_config("train", ["+experiment=jointiq"])
    for name in names:
        assert OmegaConf.select(config, name, default=...) is not ..., f"{element}: no config key {name}"


def test_every_config_group_is_described() -> None:
    described = set(re.findall(r"`conf/([a-z_]+)/`", DOCS["systems"]))
    groups = {folder.name for folder in (ROOT / "conf").iterdir() if folder.is_dir()} - {"hydra"}
    assert described == groups


def test_values_listed_for_a_group_are_its_files() -> None:
    checked = 0
    listed = {row[0].strip("`+="): row[1] for row in table_rows("training", "Choices")}
    listed["experiment"] = " ".join(row[0] for row in table_rows("systems", "Systems"))
    for group, values in listed.items():
        folder = ROOT / "conf" / group
        if folder.is_dir():
            options = {path.stem for path in folder.glob("*.yaml") if not path.stem.startswith("_")}
            named = set(re.findall(r"`([a-z_0-9]+)`", values))
            assert named == options, f"{group}: docs {sorted(named)}, conf {sorted(options)}"
            checked += 1
    assert checked >= 6


@pytest.mark.parametrize("page", ["README.md", "weights/README.md"])
def test_the_shipped_model_saves_what_the_pages_say(page: str) -> None:
    text = " ".join((ROOT / page).read_text(encoding="utf-8").split())
    said = re.findall(r"(\d+) % (fewer|more)(?: bits)? than ([A-Z][\w ]*?)(?=,| and|[.:])", text)
    assert {"JPEG", "JPEG 2000", "WebP", "HEVC intra"} <= {codec for _, _, codec in said}
    results = json.loads((ROOT / "experiments/models/results/pilot/results.json").read_text(encoding="utf-8"))
    saved = {
        each["value"]: each["percent"]
        for each in results["ours"]
        if "kodak" in each["measured_on"] and "percent" in each
    }
    for percent, sense, codec in said:
        saving = saved[f"saved against {codec}"]
        assert (round(abs(saving)), "fewer" if saving > 0 else "more") == (int(percent), sense), codec
