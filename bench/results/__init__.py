"""A run's folder: its records, samples and resources, and how they are written and read."""
