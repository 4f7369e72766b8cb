"""A run's numbers as pandas DataFrames, for `from bench import open_run` and for the tables of a report."""
