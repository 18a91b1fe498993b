"""Training: LightningModules, losses, schedules, callbacks."""
