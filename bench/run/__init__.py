"""A run from its lock to its exit code, with the checks before it and the cleanup after it."""
