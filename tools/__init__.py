"""For those who work on the project: benchmarks, fuzzing, shipping of models."""
