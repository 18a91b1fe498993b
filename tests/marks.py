"""Parameters that `make test` leaves to `make test-all`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest


def slow(*values: Any) -> Any:
    """A set of parameters that is tested by `make test-all` only."""
    return pytest.param(*values, marks=pytest.mark.slow)


def slow_but(quick: Iterable[Any], values: Iterable[Any]) -> list[Any]:
    """All ``values``, of which `make test` takes those of ``quick``."""
    values, quick = list(values), list(quick)
    assert set(quick) <= set(values), f"{quick} are not among {values}"
    return [value if value in quick else slow(value) for value in values]
