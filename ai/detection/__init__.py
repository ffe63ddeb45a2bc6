"""Prostate region and lesion candidates."""
