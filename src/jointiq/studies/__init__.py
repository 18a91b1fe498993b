"""Studies: tables and figures of the papers, reproduced by training, measuring and analysis as declared in a file."""
