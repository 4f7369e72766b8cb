"""Configure and read Envoy, whichever mesh it belongs to."""
