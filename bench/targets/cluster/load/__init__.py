"""Locust in a pod: its manifests, its clock, its samples."""
