"""Read what people write: YAML with its lines, folders of manifests, validation messages."""
