"""The system under test: its manifests, its model, and Bookinfo."""
