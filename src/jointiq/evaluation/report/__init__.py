"""Report in one HTML file: plots, tables and a viewer of decoded pictures; nothing is loaded from elsewhere."""
