"""Figures that say how well meshbench itself does; `python -m tests.benchmarks --help` lists them."""
