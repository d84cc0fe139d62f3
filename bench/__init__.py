"""Benchmarks: figures and ratios against other tools in the same run. Nothing here asserts a time."""
