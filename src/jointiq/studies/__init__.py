"""Studies: each table and figure of the papers as a declared chain of training, measuring and analysis."""
