"""What users type in a checkout: ``python -m src.train``, ``python -m src.codec``, ...; the library is ``jointiq``."""
