"""What any Envoy reports and what it is configured with, whichever mesh it belongs to."""
