"""Figures about the quality of meshbench itself; `python -m tests.benchmarks --help` lists them."""
