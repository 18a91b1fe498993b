"""Real codecs to compare with."""
