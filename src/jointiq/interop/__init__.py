"""Our models in CompressAI's tools: its checkpoint files and command lines (docs/compressai.md)."""
