"""What a run needs of a cluster, examined before anything is created on it."""
