"""The load: what runs inside Locust (`recorder`, `pacing`), and the process that runs Locust (`generator`)."""

from pathlib import Path


def recorder_path() -> Path:
    """The file that Locust loads beside the locustfile."""
    return Path(__file__).with_name("recorder.py")
