"""LightningModules with their losses, crops and metrics."""
