"""The system under test: what its application.yaml says, its manifests, and the model of both."""
