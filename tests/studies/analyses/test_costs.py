from __future__ import annotations

from jointiq.evaluation.complexity import Complexity, Cost
from jointiq.studies.analyses import costs
from tests.studies.contexts import a_context, a_run


def test_costs_are_those_of_the_device_of_the_study(tmp_path, monkeypatch):
    monkeypatch.setattr(costs, "load_model", lambda path, device="cpu": device)
    on = []
    monkeypatch.setattr(costs, "complexity", lambda model, *_: on.append(model) or Complexity((1, 1), Cost(1, 1.0), {}))
    costs.analyse(a_context(tmp_path, [a_run("one", [0.5])], None, device="cuda:1"), {"repeats": 1})
    assert on == ["cuda:1"]
