"""What is trained: Lightning modules, losses, crops."""
