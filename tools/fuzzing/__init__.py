"""Damaged and unusual files, and a process in which the project reads them: ``python -m tools.fuzz``."""

#: What can be fuzzed: each is a module of this package with a function ``target``.
WHAT = ("bitstreams", "pictures", "models", "results")
