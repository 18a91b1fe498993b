"""Many runs: the jobs of a sweep, stages of a chain, curves."""
