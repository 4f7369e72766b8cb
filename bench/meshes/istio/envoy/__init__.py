"""Build the Envoy configuration of sidecars and gateways as istiod does."""
