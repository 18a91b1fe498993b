"""Build the W&B workspace of a project: ``python -m src.dashboard --project P --entity E [--group SWEEP]``."""

from __future__ import annotations

import json
from collections.abc import Sequence

from jointiq.command_line import Parser, program
from jointiq.errors import UserError, run_cli
from jointiq.tracking.mode import PROJECT, is_logged_in


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse the command line, then save the workspace or print it."""
    parser = Parser(
        prog=program("dashboard"),
        description="Save a W&B workspace with RD curves and anchors, losses, rates, pictures and BD-rate tables.",
        epilog="Needs the package wandb-workspaces and, but for --print, a user who is logged in (wandb login).",
    )
    parser.add_argument("--entity", required=True, help="user or team that the project belongs to")
    parser.add_argument("--project", default=PROJECT, help="default: %(default)s")
    parser.add_argument("--group", help="show one sweep: the group of its runs; default: all runs")
    parser.add_argument("--print", action="store_true", help="print the workspace as JSON instead of saving it")
    options = parser.parse_args(arguments)
    # Imported late, so that --help and a mistyped command do not wait for W&B and Matplotlib.
    from jointiq.tracking.dashboard import build_workspace, save

    workspace = build_workspace(options.entity, options.project, options.group)
    if options.print:
        view = workspace._to_model()
        print(json.dumps(view.model_dump(mode="json", by_alias=True, exclude_none=True), indent=1))
        return 0
    if not is_logged_in():
        raise UserError("nobody is logged in to W&B; allowed: wandb login, or --print for the workspace as JSON")
    print(save(workspace))
    return 0


if __name__ == "__main__":
    run_cli(main)
