"""The cluster target: Bookinfo, a mesh and the load as pods, reached through the API server alone."""
