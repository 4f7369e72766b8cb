"""The load: modules that run inside Locust (`recorder` and what it imports), and Locust's control (`generator`)."""

from pathlib import Path


def recorder_path() -> Path:
    """Return the path of the file that Locust loads in addition to the locustfile."""
    return Path(__file__).with_name("recorder.py")
