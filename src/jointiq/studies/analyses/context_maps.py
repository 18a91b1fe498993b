"""JointIQ-Net, Figures 6 and 7: the positions that each context reads, and the trained weights psi."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.colors import BoundaryNorm, ListedColormap
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from jointiq.bitstream.scan import SCANS, Scan
from jointiq.coding.load import load_model
from jointiq.console import Table, number
from jointiq.entropy_models.context import ContextEntropyModel
from jointiq.evaluation.context_weights import effective_positions, weight_maps
from jointiq.evaluation.plots.rd_plot import new_figure, save_all
from jointiq.layers.block_context import BlockContext
from jointiq.layers.causal_sums import pair_index
from jointiq.layers.context import ABOVE, LEFT, WindowLinear
from jointiq.layers.global_context import GlobalContext
from jointiq.studies.context import Context, Findings, Ours, steps_text

OPTIONS = {"run", "K"}
#: Kinds of positions in a map, and their colours.
KINDS = {
    "not read": "#f2f2f2",
    "global context, beyond": "#9ecae1",
    "global context, local part": "#4292c6",
    "c'' and global context": "#08519c",
    "current": "#D55E00",
}
GRID = (20, 28)
CURRENT = (11, 13)


def analyse(context: Context, options: Mapping[str, Any]) -> Findings:
    """Draw the regions of both scans, and psi of a trained model.

    Options: ``run`` (a run with global context) and ``K`` (of the drawn regions). For a value with ``psi: true`` our
    result is the effective number of weights of a channel: exp of their entropy, 1 if one has all, all if they are
    equal.
    """
    findings = Findings(figures=[(_regions(context, int(options.get("K", 7))), _REGIONS)])
    name = str(options.get("run"))
    for one in context.of(name)[:1]:
        model = load_model(one.checkpoint)
        context_model = model.entropy_model
        psi_of = context_model.global_context if isinstance(context_model, ContextEntropyModel) else None
        if not isinstance(psi_of, GlobalContext | BlockContext):
            continue
        maps = weight_maps(psi_of)
        spread = effective_positions(maps)
        in_blocks = isinstance(psi_of, BlockContext)
        findings.figures.append((_psi(context, maps, spread, in_blocks), _PSI_OF_BLOCKS if in_blocks else _PSI))
        order = np.quantile(spread, [0, 0.25, 0.5, 0.75, 1])
        table = Table(
            "Effective number of weights of a channel (exp of their entropy)",
            ("least", "quarter", "median", "three quarters", "most"),
        )
        table.rows.append([number(float(x), 1) for x in order])
        findings.tables.append(table)
        text = f"{order[0]:.1f} to {order[-1]:.1f} of {int(np.isfinite(maps[0]).sum())} weights, median {order[2]:.1f}"
        numbers = {"quantiles": order.tolist(), "lmbda": one.lmbda}
        for value in context.scale.values:
            if value.details.get("psi"):
                findings.ours.append(Ours(value.name, text, numbers, "no images", steps_text([one])))
    return findings


_REGIONS = (
    "What the position in orange reads of y_hat, drawn from the masks of the code: the causal 4x4 window c'', and the "
    "global context c''' with its local part (weights psi of their own) and its non-local part (each position shares "
    "the nearest weight). Left raster, right wavefront. c' reads the whole 4x4 window of h_s(z_hat)."
)
_PSI = (
    "softmax(psi) over the local region for four channels, from the most concentrated to the widest; the outermost "
    "rows and columns stand for all positions beyond them. The red square is the current position."
)
_PSI_OF_BLOCKS = (
    "softmax(psi) for four channels, from the most concentrated to the widest. A square is a block of 2x2 positions, "
    "the red one that of the current position; one more weight, for all blocks beyond, is left out."
)


def regions(scan: Scan, K: int) -> NDArray[np.integer]:
    """Return the kind (index into :data:`KINDS`) of each position of a grid, as seen from :data:`CURRENT`."""
    height, width = GRID
    row, column = CURRENT
    _, known = pair_index(scan, K, height, width)
    seen = known[row * width + column].view(height, width).numpy()
    kinds = np.where(seen, 1, 0)
    rows, columns = np.mgrid[:height, :width]
    near = (np.abs(rows - row) <= K) & (np.abs(columns - column) <= K)
    kinds[seen & near] = 2
    window = WindowLinear(1, 1, causal=True).mask.numpy() > 0
    for drow, dcolumn in np.argwhere(window):
        kinds[row - ABOVE + drow, column - LEFT + dcolumn] = 3
    kinds[row, column] = 4
    return kinds


def _regions(context: Context, K: int) -> Path:
    figure = new_figure(7.6, 3.6)
    colours = ListedColormap(list(KINDS.values()))
    norm = BoundaryNorm(np.arange(len(KINDS) + 1) - 0.5, len(KINDS))
    for i, scan in enumerate(SCANS.values()):
        axes = figure.add_subplot(1, 2, i + 1)
        axes.pcolormesh(regions(scan, K)[::-1], cmap=colours, norm=norm, edgecolors="white", linewidth=0.4)
        axes.set_title(f"{scan.name}, K = {K}", loc="left", fontsize=10)
        axes.set_aspect("equal")
        axes.axis("off")
    handles = [Patch(color=colour, label=kind) for kind, colour in KINDS.items()]
    figure.legend(handles=handles, loc="outside lower center", ncols=3, fontsize=8, frameon=False)
    return save_all(figure, context.output / "context_regions")[0]


def _psi(context: Context, maps: NDArray[np.floating], spread: NDArray[np.floating], in_blocks: bool) -> Path:
    order = np.argsort(spread)
    chosen = [order[round(place * (len(order) - 1))] for place in (0, 1 / 3, 2 / 3, 1)]
    figure = new_figure(7.6, 2.6 if in_blocks else 2.0)
    height, width = maps.shape[1:]
    current = (width // 2, height // 2 if in_blocks else height - 1)
    for i, channel in enumerate(chosen):
        axes = figure.add_subplot(1, 4, i + 1)
        shown = axes.imshow(maps[channel], cmap="viridis", vmin=0)
        axes.plot(*current, marker="s", markersize=6, markerfacecolor="none", markeredgecolor="red")
        axes.set_title(f"channel {channel}: {spread[channel]:.1f}", fontsize=8, loc="left")
        axes.set_xticks([])
        axes.set_yticks([])
        bar = figure.colorbar(shown, ax=axes, orientation="horizontal", shrink=0.8)
        bar.locator = MaxNLocator(3)
        bar.update_ticks()
        bar.ax.tick_params(labelsize=6)
    return save_all(figure, context.output / "psi")[0]
