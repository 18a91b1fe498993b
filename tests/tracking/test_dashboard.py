"""``python -m src.dashboard``: what it would send, without sending it."""

from __future__ import annotations

import json
import os
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest
import wandb

from jointiq.commands.dashboard import main
from jointiq.errors import UserError
from jointiq.tracking.dashboard import rd_chart_spec
from jointiq.tracking.tables import COLUMNS

pytestmark = pytest.mark.filterwarnings("ignore:Pydantic V1 style:DeprecationWarning")


@pytest.fixture(autouse=True)
def nobody(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("WANDB_MODE", "WANDB_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "none"))


def printed(capsys: pytest.CaptureFixture[str], *options: str) -> dict[str, Any]:
    assert main(["--entity", "team", "--print", *options]) == 0
    return json.loads(capsys.readouterr().out)


def sections(view: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    return {s["name"]: s["panels"] for s in view["spec"]["section"]["panelBankConfig"]["sections"]}


def test_a_workspace_has_all_sections(capsys: pytest.CaptureFixture[str]) -> None:
    view = printed(capsys, "--project", "codec")
    assert (view["entity"], view["project"]) == ("team", "codec")
    names = list(sections(view))
    assert names == ["Rate-distortion", "Training", "Pictures", "Rate", "Health", "BD-rate"]
    text = json.dumps(view)
    for key in ("train/loss", "val/bpp_y", "val/bpp_z", "val/image_0", "psi", "bdrate/rates", "bdrate/rd_psnr"):
        assert json.dumps(key)[1:-1] in text, key


def test_curves_read_the_tables_that_runs_log(capsys: pytest.CaptureFixture[str]) -> None:
    panels = sections(printed(capsys))
    charts = [panel["config"] for panel in panels["Rate-distortion"] if panel["viewType"] == "Vega2"]
    assert [chart["fieldSettings"]["y"] for chart in charts] == ["psnr", "ms_ssim_db"]
    spec = json.dumps(rd_chart_spec())
    for chart in charts:
        (query,) = chart["userQuery"]["queryFields"]
        tables = [field["args"] for field in query["fields"] if field["name"] == "summaryTable"]
        assert tables == [[{"name": "tableKey", "value": "rd/curve_table"}]]
        assert set(chart["fieldSettings"].values()) <= set(COLUMNS)
        for kind, names in (("field", chart["fieldSettings"]), ("string", chart["stringSettings"])):
            assert {f"${{{kind}:{name}}}" for name in names} <= set(_placeholders(spec))
    named = {f"${{field:{name}}}" for name in charts[0]["fieldSettings"]}
    named |= {f"${{string:{name}}}" for name in charts[0]["stringSettings"]}
    assert set(_placeholders(spec)) == named


def _placeholders(text: str) -> list[str]:
    return [part.split("}")[0].join(("${", "}")) for part in text.split("${")[1:]]


def test_a_group_is_a_filter(capsys: pytest.CaptureFixture[str]) -> None:
    (runs,) = printed(capsys, "--group", "sweep7")["spec"]["section"]["runSets"]
    assert "sweep7" in json.dumps(runs["filters"]) and '"group"' in json.dumps(runs["filters"])
    (everything,) = printed(capsys)["spec"]["section"]["runSets"]
    assert "sweep7" not in json.dumps(everything)


class GraphQL(BaseHTTPRequestHandler):
    """Takes what a logged-in user saves, as W&B's server would."""

    received: ClassVar[dict[str, dict[str, Any]]] = {}

    def do_POST(self) -> None:
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])) or b'{"query": "nothing ( )"}')
        self.received[request["query"].split()[1].split("(")[0]] = request.get("variables") or {}
        data = {
            "viewer": {"id": "1", "username": "me", "entity": "team", "teams": {"edges": []}},
            "createCustomChart": {"chart": {"id": "chart"}},
            "upsertView": {"view": {"id": "view", "name": "nw-saved-v"}, "inserted": True},
        }
        answer = json.dumps({"data": data}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *args: Any) -> None:
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, dict[str, Any]]]:
    GraphQL.received.clear()
    with ThreadingHTTPServer(("127.0.0.1", 0), GraphQL) as http:
        threading.Thread(target=http.serve_forever, daemon=True).start()
        for name in [name for name in os.environ if name.lower().endswith("_proxy")]:
            monkeypatch.delenv(name)
        monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{http.server_port}")
        monkeypatch.setenv("WANDB_API_KEY", "k" * 40)
        yield GraphQL.received
        # W&B keeps a login for the whole process.
        wandb.teardown()
        http.shutdown()


@pytest.mark.slow
def test_a_logged_in_user_saves_chart_and_workspace(
    server: dict[str, dict[str, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--entity", "team", "--group", "sweep7"]) == 0
    chart, view = server["CreateCustomChart"], server["UpsertView2"]
    assert (chart["entity"], chart["chartName"]) == ("team", "jointiq-rd-curve")
    assert json.loads(chart["spec"]) == rd_chart_spec()
    assert (view["entityName"], view["projectName"], view["displayName"]) == ("team", "jointiq", "jointiq: sweep7")
    assert "team/jointiq-rd-curve" in view["spec"]
    assert "/team/jointiq?nw=saved" in capsys.readouterr().out


def test_without_login_it_says_so() -> None:
    with pytest.raises(UserError, match="wandb login"):
        main(["--entity", "team"])


def test_without_the_package_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "wandb_workspaces.expr", None)
    with pytest.raises(UserError, match="pip install wandb-workspaces"):
        main(["--entity", "team", "--print"])
