"""Several runs: the jobs of a sweep, on this machine or a cluster, the stages of a chain, and their RD curves."""
