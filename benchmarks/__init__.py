"""Benchmarks: ratios against a peer in the same run. Run them with ``make bench``."""
