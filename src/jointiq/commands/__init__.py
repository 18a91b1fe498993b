"""Command lines of the programs: one file for each command."""
