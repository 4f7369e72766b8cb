"""The load generator ignores its user's settings, credentials and proxies."""

import os
from pathlib import Path

import pytest

from bench.load.environment import make_load_environment
from tests import command

pytestmark = pytest.mark.measures

LOCUSTFILE = """\
import os
from pathlib import Path

from locust import HttpUser, events, task


@events.init_command_line_parser.add_listener
def options(parser):
    for name in ("--think-time", "--virtual-host"):
        parser.add_argument(name, default="")


class Reader(HttpUser):
    def wait_time(self):
        return float(self.environment.parsed_options.think_time)

    def on_start(self):
        home = Path.home()
        assert os.environ["HOME"] == str(home) and not list(home.iterdir()), home

    @task
    def page(self):
        self.client.get("/productpage", headers={"Host": self.environment.parsed_options.virtual_host})
"""
# Each of these alone would change the measurement or end the load; with some of them trials would stay valid.
SETTINGS = "processes = 2\ntags = nothing\ncsv = figures\nrun-time = 1s\nusers = 1\n"


@pytest.mark.slow
def test_user_settings_do_not_change_the_load(output: Path) -> None:
    """`.locust.conf`, `.netrc`, `LOCUST_*` and proxies belong to the user's home and shell, not to the scenario."""
    home = output.parent / "home"
    home.mkdir()
    (home / ".locust.conf").write_text(SETTINGS, "utf-8")
    (home / ".netrc").write_text("machine 127.0.0.1 login reader password secret\n", "utf-8")
    (output.parent / "readers.py").write_text(LOCUSTFILE, "utf-8")
    scenario = command.write_scenario(output.parent, [command.BASELINE], load={"locustfile": "readers"})
    closed = "http://127.0.0.1:9"
    env = {"HOME": str(home), "http_proxy": closed, "ALL_PROXY": closed, "LOCUST_USERS": "1", "LOCUST_TAGS": "none"}
    finished = command.run("run", "--scenario", scenario, output=output, env=env)
    assert finished.code == 0, finished.output
    trial = command.find_only_run(output) / "trials" / "01-baseline-1"
    record = command.read_trial_record(trial.parents[1], trial.name)
    assert record["generator"]["locust_failures"] == 0
    assert record["generator"]["recorded"] >= 24  # users, a page each at least
    assert not list(trial.glob("figures*"))


def test_environment_keeps_unrelated_variables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The load generator keeps PATH and packages that are installed for the user alone."""
    settings = {"LOCUST_HOST", "HTTPS_PROXY", "no_proxy", "NETRC", "REQUESTS_CA_BUNDLE", "SSL_CERT_FILE"}
    settings |= {"GEVENT_LOOP", "PYTHONDEVMODE", "PYTHONMALLOC", "OTEL_EXPORTER", "XDG_CONFIG_HOME", "SSLKEYLOGFILE"}
    for name in (*settings, "PYTHONPATH"):
        monkeypatch.setenv(name, "x")
    changes = make_load_environment(tmp_path)
    assert {name for name in changes if changes[name] is None} >= settings
    assert "PYTHONPATH" not in changes
    assert changes["HOME"] == str(tmp_path)
    assert changes["PYTHONUSERBASE"] == os.path.expanduser("~/.local")  # noqa: PTH111  # as Python itself does
    assert "PATH" not in changes
