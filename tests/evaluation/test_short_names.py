"""Short names tell files apart with as little as does it."""

from __future__ import annotations

import pytest

from jointiq.evaluation.short_names import short_names


@pytest.mark.parametrize(
    ("paths", "names"),
    [
        (["weights/q1.safetensors", "weights/q2.safetensors"], ["q1.safetensors", "q2.safetensors"]),
        (["/runs/a/checkpoints/last.ckpt", "/runs/b/checkpoints/last.ckpt"], ["a", "b"]),
        (["runs/a/last.ckpt", "runs/a/best.ckpt", "runs/b/last.ckpt"], ["a/last.ckpt", "a/best.ckpt", "b/last.ckpt"]),
        (["last.ckpt", "a/last.ckpt"], ["last.ckpt", "a/last.ckpt"]),
        (["runs/a/last.ckpt"], ["last.ckpt"]),
        (["runs/a/last.ckpt", "runs/a/last.ckpt"], ["last.ckpt", "last.ckpt"]),
        (["30", "50"], ["30", "50"]),
        (["", ""], ["", ""]),
        ([], []),
    ],
)
def test_the_shortest_ends_that_differ(paths: list[str], names: list[str]) -> None:
    assert short_names(paths) == names
