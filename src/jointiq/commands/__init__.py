"""What users type: one file a command."""
