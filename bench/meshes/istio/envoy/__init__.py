"""Envoy's configuration as istiod gives it."""
