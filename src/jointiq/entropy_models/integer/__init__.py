"""The integer networks of the entropy models: what codes, exactly, on every machine."""
