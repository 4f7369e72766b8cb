"""A Kubernetes API server as meshbench uses it: the only package that imports its client."""
