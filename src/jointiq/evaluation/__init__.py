"""Measuring: metrics, rate-distortion curves, BD-rate, classical codecs, plots and reports."""
