"""Every shipped config composes, and the layers of values win over each other in the documented order."""

from __future__ import annotations

import itertools
import shlex
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf

from jointiq.configs import CONFIGS
from jointiq.entropy_models import ENTROPY_MODELS
from jointiq.errors import ConfigError
from jointiq.models import build_model
from jointiq.training.assemble import model_config, schedule
from jointiq.training.validation import validate
from tests.marks import slow, slow_but
from tests.training.tiny import changed, config

EXPERIMENTS = sorted(path.stem for path in (CONFIGS / "experiment").glob("*.yaml"))
#: With values of their own: not the choice among them.
SCALES = sorted(path.stem for path in (CONFIGS / "scale").glob("*.yaml") if path.stem != "auto")
TABLE_1 = {
    0.5: (128, 128, 1_200_000, 1e-4),
    0.35: (128, 128, 1_200_000, 1e-4),
    0.23: (128, 192, 1_500_000, 1e-4),
    0.12: (192, 256, 1_500_000, 1e-4),
    0.06: (192, 420, 2_000_000, 5e-5),
    0.03: (192, 420, 2_000_000, 5e-5),
    0.017: (256, 600, 3_000_000, 5e-5),
    0.01: (256, 600, 3_000_000, 3e-5),
}
# What an experiment may hold numbers for: a count that is its very point, no size.
NOT_SIZES = {"model.G"}


def rate_point(cfg: DictConfig) -> tuple[Any, ...]:
    return cfg.model.N, cfg.model.M, cfg.trainer.max_steps, cfg.optim.lr


@pytest.mark.parametrize("scale", slow_but(("demo", "paper"), SCALES))
@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_every_experiment_composes_at_every_scale(experiment: str, scale: str) -> None:
    cfg = config(f"+experiment={experiment}", f"scale={scale}")
    validate(cfg)
    assert cfg.experiment_name == experiment
    for link in cfg.stage.get("chain", ()):
        start = () if link.stage == "joint" else ("init_from=x.ckpt",)
        choices = [f"{key}={value}" for key, value in link.items()]
        validate(config(f"+experiment={experiment}", f"scale={scale}", *choices, *start))


def test_every_scale_says_the_same_things() -> None:
    scales = {scale: OmegaConf.load(CONFIGS / "scale" / f"{scale}.yaml") for scale in SCALES}
    keys = {scale: set(values) for scale, values in scales.items()}
    assert len(set(map(frozenset, keys.values()))) == 1, keys
    assert all(values.name == scale for scale, values in scales.items())


@pytest.mark.parametrize(
    ("typed", "scale"),
    [
        ((), "demo"),
        (("+experiment=ablation_no_gc",), "demo"),
        (("+experiment=ablation_no_gc", "data=folder"), "paper"),
        (("+experiment=lee2019_hybrid", "scale=cpu"), "cpu"),
        (("data=sample",), "demo"),
        (("data=folder",), "paper"),
        (("data=prepared",), "paper"),
        (("scale=cpu",), "cpu"),
        (("scale=pilot", "data=folder"), "pilot"),
        (("scale=demo", "data=folder"), "demo"),
        (("scale=paper", "data=sample"), "paper"),
        (("scale=auto", "data=folder"), "paper"),
    ],
)
def test_the_scale_fits_the_data_unless_it_is_typed(typed: tuple[str, ...], scale: str) -> None:
    cfg = config(*typed)
    expected = OmegaConf.load(CONFIGS / "scale" / f"{scale}.yaml")
    assert cfg.scale == expected
    assert cfg.trainer.max_time == expected.max_time and cfg.data.batch_size == expected.batch_size


def test_data_of_the_users_own_are_trained_at_paper_scale(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "mine.yaml").write_text("defaults: [_patches, _self_]\nname: folder\n")
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        search = f"hydra.searchpath=[{tmp_path}]"
        assert compose("train", overrides=[search, "data=mine"]).scale.name == "paper"
        assert compose("train", overrides=[search, "data=mine", "scale=cpu"]).scale.name == "cpu"


@pytest.mark.parametrize(
    ("typed", "start"),
    [
        ((), "auto"),
        (("init_from=null",), None),
        (("init_from=x.ckpt",), "x.ckpt"),
        (("scale=cpu",), "auto"),
        (("scale=cpu_long",), "auto"),
        (("scale=pilot",), None),
        (("data=folder",), None),
    ],
)
def test_a_short_training_starts_from_components_unless_it_is_typed(typed: tuple[str, ...], start: str | None) -> None:
    assert config("+experiment=jointiq", *typed).init_from == start


def test_what_is_evaluated_has_no_scale_and_what_is_counted_the_papers() -> None:
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        assert "scale" not in compose("evaluate", overrides=["data=sample"])
        assert "scale" not in compose("anchors", overrides=["data=sample"])
        assert compose("complexity", overrides=["+experiment=jointiq"]).scale.name == "paper"
        assert compose("complexity", overrides=["+experiment=jointiq", "scale=demo"]).scale.name == "demo"


def _options(group: str) -> list[str]:
    return sorted(path.stem for path in (CONFIGS / group).glob("[!_]*.yaml"))


def _combinations() -> list[Any]:
    """Each option once: alone those that make another network, together one of every group that goes with all."""
    alone = [(f"stage={option}",) for option in _options("stage")]
    # Of models and entropy models there are experiments.
    alone += [slow((f"{group}={option}",)) for group in ("model", "entropy_model") for option in _options(group)]
    groups = ("enhancer", "distortion", "trainer", "logger", "rates", "optim", "callbacks")
    columns = [[f"{group}={option}" for option in _options(group)] for group in groups]
    return alone + [tuple(filter(None, row)) for row in itertools.zip_longest(*columns)]


@pytest.mark.parametrize("choice", _combinations(), ids=",".join)
def test_every_option_composes(choice: tuple[str, ...]) -> None:
    validate(config("+experiment=jointiq", *choice, "init_from=x.ckpt"))


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_experiments_hold_no_sizes_and_name_their_command(experiment: str) -> None:
    path = CONFIGS / "experiment" / f"{experiment}.yaml"
    lines = path.read_text().splitlines()
    assert lines[0] == "# @package _global_"
    assert lines[1] == f"# python -m src.train +experiment={experiment}"

    def numbers(node: Any, prefix: str = "") -> list[str]:
        if isinstance(node, dict):
            return [key for name, item in node.items() for key in numbers(item, f"{prefix}.{name}".lstrip("."))]
        return [prefix] if isinstance(node, int | float) and not isinstance(node, bool) else []

    loaded = OmegaConf.to_container(OmegaConf.load(path))
    assert set(numbers(loaded)) <= NOT_SIZES


def _keys_without_comment(path: Path) -> list[str]:
    """Keys of a config file that no comment stands above (a block's first comment counts for the block)."""
    missing, explained = [], False
    for line in path.read_text().splitlines():
        text = line.strip()
        if text.startswith("#"):
            explained = True
        elif not text:
            explained = False
        elif ":" in text and not text.startswith(("-", "_target_")) and not explained:
            missing.append(f"{path.name}: {text}")
    return missing


def test_every_field_is_explained() -> None:
    skipped = ("experiment", "hydra")
    files = [path for path in CONFIGS.rglob("*.yaml") if path.parent.name not in skipped and path.parent != CONFIGS]
    trivial = ("defaults:", "name:", "csv:", "wandb:")
    missing = [line for path in files for line in _keys_without_comment(path)]
    assert [line for line in missing if not line.split(": ", 1)[1].startswith(trivial)] == []


@pytest.mark.parametrize("lmbda", TABLE_1)
def test_lmbda_brings_its_row_of_table_1(lmbda: float) -> None:
    cfg = changed(config("+experiment=jointiq", "scale=paper"), f"lmbda={lmbda}")
    assert rate_point(cfg) == TABLE_1[lmbda]


def test_overrides_win_over_table_and_scale() -> None:
    overrides = ("model.N=64", "trainer.max_steps=10", "optim.lr=0.5")
    assert rate_point(config("+experiment=jointiq", "scale=paper", "lmbda=0.06", *overrides)) == (64, 420, 10, 0.5)
    assert rate_point(config("+experiment=jointiq", "scale=demo", *overrides)) == (64, 48, 10, 0.5)


def test_choices_on_the_command_line_win_over_the_experiment() -> None:
    assert config("+experiment=ablation_no_gc", "enhancer=none").enhancer.name is None


def test_scale_decides_scan_and_enhancer_size() -> None:
    paper, demo = config("+experiment=jointiq", "scale=paper"), config("+experiment=jointiq", "scale=demo")
    assert (paper.model.scan, demo.model.scan) == ("raster", "quarters")
    assert model_config(paper)["enhancer"] == {"name": "grdn", "grdbs": 4, "rdbs": 3, "convs": 3, "kernels": 32}
    full = config("+experiment=jointiq_full", "scale=demo")
    small, larger = model_config(demo)["enhancer"], model_config(full)["enhancer"]
    assert small["kernels"] < larger["kernels"] < 32
    assert small == {"name": "grdn", "grdbs": 1, "rdbs": 2, "convs": 2, "kernels": 8}
    assert larger == {"name": "grdn", "grdbs": 1, "rdbs": 2, "convs": 3, "kernels": 12}
    assert model_config(config("enhancer=grdn_full", "scale=paper"))["enhancer"]["kernels"] == 64
    assert config("+experiment=jointiq", "scale=demo", "enhancer.kernels=8").enhancer.kernels == 8


@pytest.mark.parametrize("model", ["jointiq", "balle2017"])
@pytest.mark.parametrize("entropy_model", ["context", "hybrid", "factorized", "coarse_to_fine"])
def test_entropy_models_are_swapped_like_enhancers(model: str, entropy_model: str) -> None:
    # The hybrid's M1 and M2 at scale=demo are halves of 48.
    cfg = config(f"model={model}", f"entropy_model={entropy_model}", "scale=demo", "model.N=48")
    built = build_model(model_config(cfg))
    own = {"jointiq": "context", "balle2017": "factorized"}[model]
    assert built.config.get("entropy_model", own) == entropy_model
    assert type(built.entropy_model) is ENTROPY_MODELS.get(entropy_model)[0]


def test_a_model_brings_its_own_entropy_model() -> None:
    names = ("jointiq", "lee2019_hybrid", "balle2017", "coarse_to_fine")
    chosen = [config(f"model={name}").model.entropy_model for name in names]
    assert chosen == ["context", "hybrid", "factorized", "coarse_to_fine"]
    assert "entropy_model" not in config("model=minnen2018").model
    assert config("+experiment=balle2017", "entropy_model=context", "model.G=2").model.G == 2
    with pytest.raises(HydraException, match="model.G"):
        config("entropy_model=factorized", "model.G=1")


def test_lmbda_outside_the_table_names_what_is_missing() -> None:
    message = r"lmbda=0.4 .*0\.5, 0\.35, .*model\.M=\.\. trainer\.max_steps=\.\. optim"
    with pytest.raises(ConfigError, match=message) as caught:
        validate(config("+experiment=jointiq", "scale=paper", "lmbda=0.4", "model.N=64"))
    assert "model.N" not in str(caught.value)


def test_lmbda_outside_the_table_with_its_own_values() -> None:
    own = ("model.N=8", "model.M=9", "trainer.max_steps=10", "optim.lr=0.5")
    cfg = config("+experiment=jointiq", "scale=paper", "lmbda=0.4", *own)
    validate(cfg)
    assert rate_point(cfg) == (8, 9, 10, 0.5)


@pytest.mark.parametrize(
    ("experiment", "expected"),
    [
        ("jointiq", (3, True, True, True)),
        ("ablation_no_grdn", (3, True, True, False)),
        ("ablation_no_gc", (3, False, True, True)),
        ("ablation_no_gc_mprm", (3, False, False, True)),
        ("ablation_no_gmm", (1, True, True, True)),
        ("jointiq_full", (3, True, True, True)),
    ],
)
def test_experiments_switch_off_their_part(experiment: str, expected: tuple[Any, ...]) -> None:
    built = model_config(config(f"+experiment={experiment}", "scale=demo", "model.N=4", "model.M=4"))
    parts = (built["G"], built["global_context"], built["mprm"], built["enhancer"] is not None)
    assert parts == expected
    assert built.pop("entropy_model") == "context"
    assert (built["rates"], built["levels"]) == ("one", 16)  # what models were before they had these keys
    kept = {key: value for key, value in built.items() if key not in ("conditions", "rates", "levels")}
    assert build_model(built).config == kept


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("lmbda=1.5", "lmbda=1.5 is not allowed"),
        ("lmbda=high", "lmbda='high' is not allowed"),
        ("seed=-1", "seed=-1"),
        ("threads=0", "threads=0"),
        ("threads=many", "threads='many'"),
        ("experiment_name=a/b", "experiment_name='a/b'"),
        ("trainer.max_steps=0", "trainer.max_steps=0"),
        ("trainer.max_time=5m", "days:hours:minutes:seconds"),
        ("trainer.devices=0", "trainer.devices=0"),
        ("+trainer.accumulate_grad_batches=4", "accumulate_grad_batches=4"),
        ("optim.lr=0", "optim.lr=0"),
        ("optim.clip_norm=-1", "optim.clip_norm=-1"),
        ("optim.schedule=linear", "one of step, cosine, constant"),
        ("distortion.name=l1", "one of mse, ms_ssim"),
        ("distortion.rate_unit=bytes", "one of nats, bits"),
        ("data.crop=64", "data.crop=64 .*from 128 up with model.global_context=true"),
        ("data.crop=8", "data.crop=8 .*from 16 up"),
        ("data.min_zoom=0", "data.min_zoom=0"),
        ("data.num_workers=-1", "data.num_workers=-1"),
        ("data.name=imagenet", "one of folder, prepared, sample"),
        ("optim.ema_decay=1", "optim.ema_decay=1"),
        ("stage=enhancer", "init_from='auto' .*stage=enhancer"),
        ("stage.crop=100", "stage.crop=100 .*multiple of 16 up to data.crop=128"),
        ("stage.crop=272", "stage.crop=272"),
        ("stage.crop=0", "stage.crop=0"),
        ("stage.trains=nothing", "one of all, enhancer"),
    ],
)
def test_wrong_values_are_named(override: str, message: str) -> None:
    chosen = override.startswith("stage=")
    wrong = config("+experiment=jointiq", *[override] * chosen)
    wrong = wrong if chosen else changed(wrong, override)
    with pytest.raises(ConfigError, match=message):
        validate(wrong)


def test_small_crops_are_fine_without_global_context() -> None:
    validate(config("+experiment=ablation_no_gc", "data.crop=64"))


def test_batch_is_split_evenly() -> None:
    with pytest.raises(ConfigError, match="a multiple of .* = 3"):
        validate(config("+experiment=jointiq", "trainer=ddp", "trainer.devices=3"))


def stage(name: str, scale: str = "paper") -> DictConfig:
    return config("+experiment=jointiq_full", f"stage={name}", f"scale={scale}", "init_from=x.ckpt")


def test_stages_of_the_paper() -> None:
    whole = config("+experiment=jointiq_full", "scale=paper")
    assert [dict(link) for link in whole.stage.chain] == [
        {"stage": "joint", "enhancer": "grdn_light"}, {"stage": "enhancer"}, {"stage": "crop"}
    ]  # fmt: skip
    joint, enhancer, crop = (stage(name) for name in ("joint", "enhancer", "crop"))
    assert [each.trainer.max_steps for each in (joint, enhancer, crop)] == [2_000_000, 100_000, 1_000_000]
    assert [each.stage.crop for each in (joint, enhancer, crop)] == [None, 96, 96]
    assert [each.stage.trains for each in (joint, enhancer, crop)] == ["all", "enhancer", "all"]
    assert {each.optim.lr for each in (joint, enhancer, crop)} == {5e-5}
    assert crop.optim.ema_decay is None and crop.optim.clip_norm is None
    assert model_config(crop)["enhancer"]["kernels"] == 64
    light = config("+experiment=jointiq_full", "scale=paper", "stage=joint", "enhancer=grdn_light")
    assert model_config(light) == model_config(config("+experiment=jointiq", "scale=paper"))


def test_stages_at_demo_scale_are_short() -> None:
    assert all(stage(name, "demo").trainer.max_steps <= 600 for name in ("enhancer", "crop"))
    assert stage("crop", "demo").stage.crop == 48


def test_the_crop_stage_halves_its_learning_rate_as_the_paper_says() -> None:
    cfg = stage("crop")
    factor = schedule(cfg)
    halvings = [factor((700_000 + 50_000 * number) / 1_000_000) for number in range(6)]
    assert factor(699_999 / 1_000_000) == 1 and halvings == [0.5 ** (number + 1) for number in range(6)]


def test_stages_need_an_enhancer_and_no_checkpoint_of_their_own() -> None:
    for name in ("enhancer", "crop"):
        with pytest.raises(ConfigError, match=f"enhancer.name=None .*stage={name}"):
            validate(config("+experiment=jointiq", "enhancer=none", f"stage={name}", "init_from=x.ckpt"))
    with pytest.raises(ConfigError, match="ckpt_path='x.ckpt' .*stage=all"):
        validate(config("+experiment=jointiq_full", "ckpt_path=x.ckpt"))


def _documented() -> list[str]:
    text = (CONFIGS.parent / "docs" / "training.md").read_text(encoding="utf-8")
    return [line for line in text.splitlines() if line.startswith("python -m src.train +")]


@pytest.mark.parametrize("line", _documented())
def test_documented_commands_compose(line: str) -> None:
    validate(config(*shlex.split(line)[3:]))


def test_commands_are_documented() -> None:
    assert len(_documented()) >= 6
