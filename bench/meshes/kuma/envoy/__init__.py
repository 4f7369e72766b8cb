"""Build the Envoy configuration of sidecars and gateways as kuma-cp does."""
