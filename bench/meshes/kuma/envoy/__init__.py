"""Envoy's configuration as kuma-cp gives it."""
