"""Training: LightningModules, losses, schedules, callbacks, run folders."""
