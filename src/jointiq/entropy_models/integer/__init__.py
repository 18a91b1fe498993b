"""The integer networks of the entropy models, which give the same probabilities on every machine."""
