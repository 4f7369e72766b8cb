"""Unit tests on a busy machine: slow is not wrong."""

from hypothesis import settings

settings.register_profile("any-machine", deadline=None)
settings.load_profile("any-machine")
