"""The cluster target: the application, a mesh and the load as pods, reached through the API server alone."""
