"""The load: modules that run inside Locust (`recorder` and what it imports, `inspection`), and Locust's control
(`generator`)."""

from pathlib import Path


def recorder_path() -> Path:
    """Return the path of the file that Locust loads in addition to the locustfile."""
    return Path(__file__).with_name("recorder.py")


def inspection_path() -> Path:
    """Return the path of the script that loads a locustfile without any load."""
    return Path(__file__).with_name("inspection.py")
