"""A run's folder: records, samples, resources, as they are written and read."""
