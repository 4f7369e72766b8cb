"""The local target: processes on this host's loopback."""
