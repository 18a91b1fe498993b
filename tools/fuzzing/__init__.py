"""Damaged ``.jiq`` files, and a process in which they are decoded: ``python -m tools.fuzz``."""
