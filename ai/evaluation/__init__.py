"""Evaluations: what the quality rules and the detector do on studies whose truth is known."""
