"""Our models in the tools of others: CompressAI's checkpoint files and command lines (docs/compressai.md)."""
