"""Make trained models ready for the repository: export, measure, list, describe."""
