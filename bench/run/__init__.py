"""A run from its lock to its exit code, and what goes before and after it."""
