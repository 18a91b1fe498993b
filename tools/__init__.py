"""Tools for work on the project: benchmarks, fuzzing, shipping of models."""
