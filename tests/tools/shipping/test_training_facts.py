import shutil
from pathlib import Path

import pytest

from jointiq.data.image_sets import link_folder, read_set, write_manifest
from jointiq.data.images import write_png
from jointiq.errors import UserError
from tests.tools.shipping.runs import make_run
from tests.training.tiny import config
from tools.shipping.training_facts import public_command, read_history


@pytest.fixture
def train_dir(picture, tmp_path):
    for number in range(3):
        write_png(tmp_path / "photos" / f"{number}.png", picture(20, 30, seed=number))
    return tmp_path / "photos"


def folder(path):
    return ("data=folder", f"data.train_dir={path}", f"data.val_dir={path}")


def test_one_training(living, train_dir, tmp_path):
    data = folder(train_dir)
    checkpoint = make_run(tmp_path / "run", living(), 70, "lmbda=0.3", "seed=4", "data.batch_size=3", *data)
    training = read_history(checkpoint)
    assert training.steps == 70 and training.complete and len(training.stages) == 1
    facts = training.stages[0].facts
    assert {key: facts[key] for key in ("experiment", "scale", "lambdas", "seed", "steps", "batch_size")} == {
        "experiment": "jointiq", "scale": "demo", "lambdas": [0.3], "seed": 4, "steps": 70, "batch_size": 3,
    }  # fmt: skip
    assert [images.digest for images in training.images] == [read_set([str(train_dir)], tmp_path).digest]
    assert facts["data"] == f"photos (3 images, {training.images[0].digest})"
    assert "data=folder data.train_dir=DIR data.val_dir=DIR model.N=" in facts["command"]
    assert str(tmp_path) not in str(facts)


def test_the_command_says_sizes_that_a_scale_decided(living, tmp_path):
    command = read_history(make_run(tmp_path / "run", living(), 70, "model.M=4")).stages[0].facts["command"]
    words = command.split()
    cfg = config("+experiment=jointiq", "scale=demo")
    assert {f"model.N={cfg.model.N}", f"trainer.max_steps={cfg.trainer.max_steps}", f"optim.lr={cfg.optim.lr}"} < {
        *words
    }
    assert [word for word in words if word.startswith("model.M=")] == ["model.M=4"]


def test_a_chain_of_trainings(living, tmp_path):
    first = make_run(tmp_path / "a", living(), 100, "lmbda=0.5", "init_from=null")
    second = make_run(tmp_path / "b", living(), 20, "lmbda=0.3", f"init_from={first}")
    third = make_run(tmp_path / "c", living(), 3, "lmbda=0.3", f"init_from={second}")
    training = read_history(third)
    assert [stage.facts["steps"] for stage in training.stages] == [100, 20, 3]
    assert (training.steps, training.complete) == (123, True)
    assert [stage.facts["lambdas"] for stage in training.stages] == [[0.5], [0.3], [0.3]]
    assert len(training.images) == 1
    assert [stage.facts["start"] for stage in training.stages] == ["random weights", *2 * ["the stage before"]]

    first.unlink()  # only its folder is left, which says how long it was
    assert read_history(third).steps == 123
    shutil.rmtree(tmp_path / "a")
    training = read_history(third)
    assert (training.steps, training.complete) == (23, False)


def test_a_start_from_principal_components(living, tmp_path):
    training = read_history(make_run(tmp_path / "run", living(), 70, "init_from=pca"))
    assert (training.steps, training.complete, training.stages[0].facts["start"]) == (70, True, "pca")
    assert "init_from=pca" in training.stages[0].facts["command"]


def test_a_run_in_stages(living, tmp_path):
    checkpoint = make_run(tmp_path / "run", living(), 5)
    first = make_run(tmp_path / "run" / "1_joint", living(), 30)
    make_run(tmp_path / "run" / "2_enhancer", living(), 5, f"init_from={first}")
    make_run(tmp_path / "run" / "2_enhancer.old1", living(), 9)  # an earlier one, moved aside
    training = read_history(checkpoint)
    assert [stage.facts["steps"] for stage in training.stages] == [30, 5]


def test_images_by_the_list_beside_them(living, train_dir, tmp_path):
    images = read_set([f"mine={train_dir}"], tmp_path / "cache")
    linked = link_folder(images, tmp_path / "images")
    checkpoint = make_run(tmp_path / "run", living(), 70, *folder(linked))
    shutil.rmtree(linked)
    shutil.rmtree(train_dir)
    found = read_history(checkpoint).images[0]
    assert str(found) == str(images) and str(found).startswith("mine (3 images")
    assert read_history(checkpoint, "ours").images[0].name == "ours"


@pytest.mark.parametrize(
    "foreign", ["{}", "[1]", "{", '{"name": "x", "images": [{"id": 1}]}', '{"name": "x", "images": {"0.png": "cat"}}']
)
def test_a_foreign_file_beside_the_images_is_no_list_of_them(living, train_dir, tmp_path, foreign):
    train_dir.with_name(f"{train_dir.name}.json").write_text(foreign)
    checkpoint = make_run(tmp_path / "run", living(), 70, *folder(train_dir))
    assert str(read_history(checkpoint).images[0]) == str(read_set([str(train_dir)], tmp_path / "cache"))


def test_images_of_several_folders(living, train_dir, picture, tmp_path):
    write_png(tmp_path / "more" / "x.png", picture(20, 30, seed=9))
    checkpoint = make_run(tmp_path / "run", living(), 70, *folder(f"[{train_dir},{tmp_path / 'more'}]"))
    both = read_set([str(train_dir), str(tmp_path / "more")], tmp_path / "cache")
    assert str(read_history(checkpoint).images[0]) == str(both) and both.name == "photos+more"
    for name, files in (("photos", train_dir), ("more", tmp_path / "more")):
        write_manifest(read_set([str(files)], tmp_path / "cache"), tmp_path / f"{name}.json")
    assert str(read_history(checkpoint).images[0]) == str(both)


def test_images_that_are_gone(living, train_dir, tmp_path):
    checkpoint = make_run(tmp_path / "run", living(), 70, *folder(train_dir))
    shutil.rmtree(train_dir)
    training = read_history(checkpoint)
    assert training.images == () and training.stages[0].facts["data"] is None


def test_a_checkpoint_outside_a_run(living, tmp_path):
    checkpoint = make_run(tmp_path / "run", living(), 70)
    shutil.move(checkpoint, tmp_path / "last.ckpt")
    with pytest.raises(UserError, match=r"last\.ckpt: no config\.yaml"):
        read_history(tmp_path / "last.ckpt")


def test_commands_name_no_places():
    words = "python -m src.train +experiment=a data=folder data.train_dir=/a/b paths.results=/x init_from=r/c.ckpt"
    assert public_command([*words.split(), "lmbda=0.5", "logger.file=/y", "hydra.run.dir=/z"]) == (
        "python -m src.train +experiment=a data=folder data.train_dir=DIR init_from=CKPT lmbda=0.5 logger.file=PATH"
    )
    assert public_command(["python", "-m", "src.train", f"rerun={Path.home()}"]) == "python -m src.train rerun=RUN"


def test_of_a_key_typed_twice_the_last_counts():
    command = ["python", "-m", "src.train", "optim.lr=1", "lmbda=0.5", "optim.lr=2"]
    assert public_command(command) == "python -m src.train optim.lr=2 lmbda=0.5"
