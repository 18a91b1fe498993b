from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from jointiq.bitstream.scan import SCANS, get_scan
from jointiq.commands.study import main
from jointiq.layers.global_context import GlobalContext
from jointiq.studies.analyses.context_maps import CURRENT, GRID, effective_positions, regions, weight_maps


@pytest.mark.parametrize("scan", SCANS.values(), ids=lambda scan: scan.name)
def test_regions_are_what_the_scan_knows(scan):
    kinds = regions(scan, 4)
    row, column = CURRENT
    for r, c in np.ndindex(*GRID):
        known = scan.is_known(row - r, c - column)
        assert (kinds[r, c] in (1, 2, 3)) == known, (r, c)
        if known and max(row - r, abs(c - column)) > 4:
            assert kinds[r, c] == 1
    assert (kinds == 3).sum() == 14 and kinds[row, column] == 4


def test_weights_are_those_of_the_model():
    torch.manual_seed(0)
    module = GlobalContext(3, 2, 2, get_scan("raster"))
    with torch.no_grad():
        module.psi[1].normal_(0, 3)
        module.psi[2, 0, 1] = 50
    maps = weight_maps(module)
    assert np.nansum(maps, (1, 2)) == pytest.approx(1)
    assert np.isnan(maps[0, -1, 2:]).all() and np.isfinite(maps[0, -1, :2]).all()
    spread = effective_positions(maps)
    assert spread[0] == pytest.approx(12) and spread[2] == pytest.approx(1) and 1 < spread[1] < 12


def test_psi_of_the_model_that_comes_with_the_project(tmp_path):
    assert main(["fig6", "--scale", "pilot", "--results", str(tmp_path), "--output", str(tmp_path)]) == 0
    (ours,) = json.loads((tmp_path / "results.json").read_text())["ours"]
    least, *_, most = ours["quantiles"]
    # Blocks of 2x2 positions, four in each direction.
    assert 1 <= least < 0.7 * most < most < 9 * 9
    assert (tmp_path / "psi.png").is_file() and "A square is a block" in (tmp_path / "report.md").read_text()
