"""Many images: parallel, resumable, and one bad image does not end it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from jointiq.coding.load import load_model
from jointiq.data.images import read_image, write_png
from jointiq.errors import DataError, UserError
from jointiq.evaluation import models
from jointiq.evaluation.models import evaluate_checkpoints, makers_of, with_complexity
from jointiq.evaluation.pictures import PictureFolder, picture_path
from jointiq.evaluation.rd import read_rd, write_rd
from jointiq.models import build_model


@pytest.fixture
def images(tmp_path: Path, picture) -> list[Path]:
    for index in range(3):
        write_png(tmp_path / "images" / f"{index}.png", picture(20, 30 + index, seed=index))
    return sorted((tmp_path / "images").iterdir())


@pytest.fixture
def checkpoints(tmp_path: Path) -> list[str]:
    paths = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        model = build_model({"name": "jointiq", "N": 8, "M": 8, "enhancer": None})
        torch.save(model.state_dict(), path := tmp_path / f"{seed}.pth.tar")
        paths.append(str(path))
    return paths


def without_times(curve):
    return [{key: value for key, value in row.items() if "time" not in key} for row in curve.images]


def test_a_repeated_run_evaluates_only_what_is_missing(tmp_path, images, checkpoints, monkeypatch) -> None:
    rows = tmp_path / "rows"
    first = evaluate_checkpoints(checkpoints, images[:2], "ours", rows=rows)
    coded = []
    honest = models.encode_image
    monkeypatch.setattr(models, "encode_image", lambda *args: coded.append(args) or honest(*args))
    seen = []
    again = evaluate_checkpoints(checkpoints, images[:2], "ours", rows=rows, advance=seen.append)
    assert coded == [] and all(done.reused for done in seen) and len(seen) == 4
    assert again == first
    evaluate_checkpoints(checkpoints[:1], images, "ours", rows=rows)
    assert len(coded) == 1
    write_png(images[0], read_image(images[1])[:, ::-1].copy())
    evaluate_checkpoints(checkpoints[:1], images, "ours", rows=rows)
    assert len(coded) == 2  # other pixels under the same name
    torch.manual_seed(5)
    torch.save(build_model({"name": "jointiq", "N": 8, "M": 8, "enhancer": None}).state_dict(), checkpoints[0])
    evaluate_checkpoints(checkpoints[:1], images, "ours", rows=rows)
    assert len(coded) == 5  # another model under the same name
    state = torch.load(checkpoints[0], weights_only=True)
    state["g_a.convs.0.bias"] += 1
    torch.save(state, checkpoints[0])
    evaluate_checkpoints(checkpoints[:1], images, "ours", rows=rows)
    assert len(coded) == 8  # another encoder of the same decoder


def test_damaged_rows_and_lost_latents_are_evaluated_again(tmp_path, images, checkpoints, monkeypatch) -> None:
    rows = tmp_path / "rows"
    monkeypatch.setattr(models, "same_latents", lambda *args: False)
    evaluate_checkpoints(checkpoints[:1], images[:1], "ours", rows=rows)
    assert not rows.exists()
    monkeypatch.undo()
    first = evaluate_checkpoints(checkpoints[:1], images[:1], "ours", rows=rows)
    (file,) = rows.iterdir()
    file.write_text(file.read_text()[:40])
    assert without_times(evaluate_checkpoints(checkpoints[:1], images[:1], "ours", rows=rows)) == without_times(first)


def test_a_bad_image_is_named_and_left_out_of_every_point(images, checkpoints, monkeypatch) -> None:
    images[1].write_bytes(b"no image")
    curve = evaluate_checkpoints(checkpoints, images, "ours")
    assert len(curve) == 2 and {row["image"] for row in curve.images} == {"0.png", "2.png"}
    assert {(one["checkpoint"], one["image"]) for one in curve.about["failed"]} == {(c, "1.png") for c in checkpoints}
    honest = models.evaluate_image

    def fails(model, checkpoint, name, image, *refinement):
        if checkpoint == checkpoints[1] and name == "0.png":
            raise RuntimeError("out of\nmemory")
        return honest(model, checkpoint, name, image, *refinement)

    monkeypatch.setattr(models, "evaluate_image", fails)
    curve = evaluate_checkpoints(checkpoints, images, "ours")
    assert {row["image"] for row in curve.images} == {"2.png"} and len(curve) == 2
    assert curve.about["failed"][-1]["problem"] == "out of memory" or curve.about["failed"][0]["problem"]
    with pytest.raises(DataError, match=r"every image failed; the first, 1\.png"):
        evaluate_checkpoints(checkpoints, images[1:2], "ours")


def test_a_checkpoint_that_cannot_be_opened_stops_everything(images, checkpoints, tmp_path) -> None:
    (tmp_path / "bad.ckpt").write_bytes(b"none")
    seen = []
    with pytest.raises(UserError, match=r"bad\.ckpt"):
        evaluate_checkpoints([checkpoints[0], str(tmp_path / "bad.ckpt")], images, "ours", advance=seen.append)
    assert seen == []


def test_pictures_are_kept_and_named_by_the_rows(tmp_path, images, checkpoints) -> None:
    keep = PictureFolder(tmp_path / "pictures", tmp_path / "results")
    curve = evaluate_checkpoints(checkpoints, images, "ours", rows=tmp_path / "rows", pictures=keep)
    file, _ = write_rd(tmp_path / "results" / "ours.json", curve)
    paths = [picture_path(file, row) for row in read_rd(file).images]
    assert len(set(paths)) == 6
    shapes = [read_image(path).shape[:2] for path in paths]
    assert shapes == [(row["height"], row["width"]) for row in curve.images]
    paths[0].unlink()
    evaluate_checkpoints(checkpoints, images, "ours", rows=tmp_path / "rows", pictures=keep)
    assert paths[0].is_file()


@pytest.mark.slow
def test_workers_find_what_one_process_finds(images, checkpoints) -> None:
    alone = evaluate_checkpoints(checkpoints, images, "ours")
    together = evaluate_checkpoints(checkpoints, images, "ours", workers=2)
    assert without_times(together) == without_times(alone)


def test_costs_become_columns(images, checkpoints) -> None:
    curve = evaluate_checkpoints(checkpoints, images[:1], "ours")
    counted = with_complexity(curve, makers_of(list(curve.parameter), "cpu"), 0, lambda note: None)
    parameters = sum(p.numel() for p in load_model(checkpoints[0]).parameters())
    assert counted.results["parameters"] == (parameters,) * 2 and "encoding_memory" not in counted.results
    assert counted.results["encoding_time"] == curve.results["encoding_time"]
    parts = counted.about["complexity"][checkpoints[0]]["parts"]
    assert {"g_a", "g_s", "estimator"} <= set(parts)
    assert sum(part["parameters"] for part in parts.values()) == parameters
