"""Secrets stay secret: the real command fails in many ways with known credentials, and its output and files are
searched for them."""

import base64
import json
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

import psutil
import pytest
import yaml

from tests import command
from tests.api_server import ApiServer, serve

TOKEN = "s3cr3t/t0ken+with-odd~characters=="  # noqa: S105  # of no account
PASSWORD = "pa55 w0rd&never/shown"  # noqa: S105  # of no account
KEY = "MIIEvQIBADANBgkqhkiG9w0BAQEFAASC"
PEM = f"-----BEGIN PRIVATE KEY-----\n{KEY}\nshort==\n-----END PRIVATE KEY-----\n"
SECRETS = (TOKEN, PASSWORD, KEY)


@dataclass
class Case:
    """One failure: the user, how the cluster is reached, and the command."""

    user: dict[str, Any]
    code: int
    files: dict[str, str] = field(default_factory=dict)
    proxy: str = ""
    refuses: Callable[[str, str], bool] = lambda _method, _path: False
    words: tuple[str, ...] = ("run", "--yes")
    message: str = ""


def _everything(_method: str, _path: str) -> bool:
    return True


def _workloads(method: str, path: str) -> bool:
    """Whether a request creates a trial's first objects: after the lock, so that there is a run's folder."""
    return method == "PATCH" and "/namespaces/" in path


def _plugin(status: dict[str, str]) -> str:
    answer = {"apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential", "status": status}
    return f"#!/bin/sh\ncat <<'END'\n{json.dumps(answer)}\nEND\n"


EXEC = {"exec": {"command": "./login", "apiVersion": "client.authentication.k8s.io/v1", "interactiveMode": "Never"}}
CASES = {
    "token-file-with-line-end": Case({"tokenFile": "token"}, 3, {"token": f"{TOKEN}\n"}, refuses=_everything),
    "token-with-line-end": Case({"token": f"{TOKEN}\n"}, 4, refuses=_workloads, message="forbidden for a request with"),
    "token-with-line-break-inside": Case(
        {"tokenFile": "token"}, 3, {"token": f"{TOKEN}\n{TOKEN}\n"}, message="line break"
    ),
    "token-that-is-no-ascii": Case({"token": f"{TOKEN}é"}, 3),
    "token-of-a-plugin": Case(EXEC, 4, {"login": _plugin({"token": f"{TOKEN}\n"})}, refuses=_workloads),
    "token-of-a-plugin-with-line-break": Case(EXEC, 3, {"login": _plugin({"token": f"{TOKEN}\n{TOKEN}"})}),
    "plugin-that-prints-its-token": Case(EXEC, 3, {"login": f"#!/bin/sh\necho 'Bearer {TOKEN}' >&2\nexit 1\n"}),
    "password": Case({"username": "me", "password": PASSWORD}, 4, refuses=_workloads),
    "password-with-line-break": Case({"username": "me", "password": f"{PASSWORD}\n{PASSWORD}"}, 3),
    "proxy-that-refuses": Case({"token": TOKEN}, 3, proxy=f"http://me:{quote(PASSWORD, safe='')}@PROXY"),
    "proxy-that-is-no-url": Case({"token": TOKEN}, 3, proxy=f"http://me:{quote(PASSWORD, safe='')}@127.0.0.1:port"),
    "key-that-is-none": Case({"client-key-data": base64.b64encode(PEM.encode()).decode()}, 3, refuses=_everything),
    "kubeconfig-that-is-no-yaml": Case({}, 3, {"config": f"users:\n- user:\n    token: {TOKEN}: x\n  name: [\n"}),
    "prometheus-with-password": Case(
        {"token": TOKEN}, 3, words=("run", "--yes", "--prometheus", f"http://me:{quote(PASSWORD, safe='')}@127.0.0.1:1")
    ),
    "prometheus-that-is-no-url": Case(
        {"token": TOKEN}, 2, words=("run", "--yes", "--prometheus", f"me:{quote(PASSWORD, safe='')}@127.0.0.1:1")
    ),
    "doctor": Case({"token": f"{TOKEN}\n"}, 4, refuses=lambda _m, path: "nodes" in path, words=("doctor",)),
    "plan-as-json": Case({"token": f"{TOKEN}\n"}, 3, refuses=_everything, words=("plan", "--json")),
    "cleanup": Case({"token": f"{TOKEN}\n"}, 3, refuses=_everything, words=("cleanup",)),
    "bug": Case({"token": TOKEN}, 1, words=("bug",), message="Traceback"),
}
# An unexpected failure, with the headers in its text.
BUG = """
import bench.targets.cluster.session as session
def fail(cluster):
    raise RuntimeError(f"bug in the middle of {cluster._connection.credentials.headers}")
session.describe_cluster = fail
"""


@contextmanager
def kubeconfig(folder: Path, case: Case) -> Iterator[Path]:
    """A kubeconfig of the case's user, and its API server."""
    server, proxy = ApiServer(refuses=case.refuses), ApiServer(refuses=_everything)
    with serve(server) as address, serve(proxy) as proxy_address:
        cluster = {"server": f"http://{address}"}
        if case.proxy:
            cluster["proxy-url"] = case.proxy.replace("PROXY", proxy_address)
        content = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "loop",
            "contexts": [{"name": "loop", "context": {"cluster": "loop", "user": "me"}}],
            "clusters": [{"name": "loop", "cluster": cluster}],
            "users": [{"name": "me", "user": case.user}],
        }
        (folder / "config").write_text(yaml.safe_dump(content), "utf-8")
        for name, text in case.files.items():
            (folder / name).write_text(text, "utf-8")
            (folder / name).chmod(0o700)
        yield folder / "config"


@pytest.mark.parametrize("name", CASES)
def test_failing_run_shows_no_secret(name: str, output: Path) -> None:
    """No token, password or key, in any of their forms, is printed or in a file, however the command fails."""
    case = CASES[name]
    home, tmp = output.parent / "home", output.parent / "tmp"
    home.mkdir()
    tmp.mkdir()
    scenario = command.write_scenario(output.parent, [command.BASELINE])
    driver = BUG if case.words == ("bug",) else ""
    words = [*(("run", "--yes") if driver else case.words), "--context", "loop"]
    words += [] if "cleanup" in words else ["--scenario", str(scenario)]
    words += [] if {"plan", "cleanup"} & {*words} else ["--output", str(output)]
    with kubeconfig(home, case) as config:
        environment = {"KUBECONFIG": str(config), "TMPDIR": str(tmp), "NO_PROXY": ""}
        ended = command.call(*words, output=output, env=environment, driver=driver)
    assert ended.code == case.code, ended.output
    assert case.message in ended.err, ended.output
    assert driver or "Traceback" not in ended.err, ended.output
    assert (case.refuses is _workloads) == any(output.glob("*/run.json")), ended.output
    for secret in SECRETS:
        assert not any(form in ended.out + ended.err for form in forms(secret)), ended.output
        assert find_secret(secret, output, tmp) == []


def find_secret(secret: str, *folders: Path) -> list[Path]:
    """Return the files of folders that have the secret in one of its forms."""
    left = {path: path.read_bytes() for folder in folders for path in folder.rglob("*") if path.is_file()}
    return [path for path, content in left.items() if any(form.encode() in content for form in forms(secret))]


def read_arguments(pid: int) -> str:
    """Return the command lines of a process and of all below it."""
    process = psutil.Process(pid)
    return "\n".join(" ".join(one.cmdline()) for one in (process, *process.children(recursive=True)))


def test_killed_run_on_a_cluster_leaves_no_secret(output: Path) -> None:
    """The private kubeconfig is the only copy of the token; a plain cleanup lists and removes it."""
    home, tmp = output.parent / "home", output.parent / "tmp"
    home.mkdir()
    tmp.mkdir()
    scenario = command.write_scenario(output.parent, [command.BASELINE])
    words = ("run", "--yes", "--context", "loop", "--scenario", scenario, "--output", output)
    with kubeconfig(home, Case({"token": f"{TOKEN}\n"}, 0)) as config:
        environment = {"KUBECONFIG": str(config), "TMPDIR": str(tmp), "NO_PROXY": ""}
        started = command.start(*words, output=output, env=environment)
        started.line("apply")
        arguments = read_arguments(started.popen.pid)
        started.send(signal.SIGKILL)
        killed = started.wait()
        (folder,) = tmp.iterdir()
        assert {path.parents[1] for path in find_secret(TOKEN, tmp)} == {folder}
        assert folder.stat().st_mode & 0o777 == 0o700
        listed = command.call("cleanup", "--output", output, "--list", output=output, env=environment)
        cleaned = command.call("cleanup", "--output", output, output=output, env=environment)
    assert f"{folder}: temporary folder of a command that was killed" in listed.out
    assert cleaned.code == 7, cleaned.output  # objects on the cluster need another command
    assert list(tmp.iterdir()) == []
    assert find_secret(TOKEN, output) == []
    printed = arguments + killed.output + listed.output + cleaned.output
    assert not any(form in printed for form in forms(TOKEN))


LOCUSTFILE = """\
import os

from locust import FastHttpUser, constant, task


class Reader(FastHttpUser):
    wait_time = constant(1)

    def on_start(self):
        print(open("users.csv").read(), os.environ["SHOP_TOKEN"])

    @task
    def page(self):
        self.client.get("/productpage")
"""


def test_killed_run_here_leaves_no_secret_to_publish(output: Path) -> None:
    """Data beside the Locust file, variables, and what it prints of them, are private; the run can be resumed after a
    cleanup, and another one removes everything."""
    tmp, load = output.parent / "tmp", output.parent / "load"
    tmp.mkdir()
    load.mkdir()
    (load / "readers.py").write_text(LOCUSTFILE, "utf-8")
    (load / "users.csv").write_text(f"jane,{PASSWORD}\n", "utf-8")
    variables = {"SHOP_TOKEN": {"env": "SHOP_TOKEN"}}
    changes = {"locustfile": "load/readers", "env": variables, "duration": "60s"}
    scenario = command.write_scenario(output.parent, [command.BASELINE], load=changes)
    environment = {"TMPDIR": str(tmp), "SHOP_TOKEN": TOKEN}
    with command.run_in_background("run", "--scenario", scenario, output=output, env=environment) as started:
        started.loading("01-baseline-1", rows=5)
        arguments = read_arguments(started.popen.pid)
        run = started.folder()
        started.send(signal.SIGKILL)
        killed = started.wait()
    assert not any(form in arguments + killed.output for secret in SECRETS for form in forms(secret))
    private = output / ".private" / run.name
    assert all(path.is_relative_to(private) for secret in SECRETS for path in find_secret(secret, output))
    assert (private / "locust" / "users.csv").stat().st_mode & 0o777 == 0o600
    cleaned = command.call("cleanup", "--output", output, output=output, env=environment)
    assert cleaned.code == 0, cleaned.output
    assert list(tmp.iterdir()) == []
    (private / "locust" / "users.csv").rename(output.parent / "users.csv")
    refused = command.call("run", "--resume", run, output=output, env=environment)
    assert (refused.code, refused.err.count("locust/users.csv")) == (2, 1), refused.output
    forgotten = command.call("cleanup", "--run", run, "--no-resume", output=output, env=environment)
    assert forgotten.code == 0, forgotten.output
    assert not private.exists()
    assert not [path for secret in SECRETS for path in find_secret(secret, output, tmp)]


def forms(secret: str) -> set[str]:
    """The forms in which a secret may appear."""
    encoded = [base64.b64encode(text.encode()).decode().rstrip("=") for text in (secret, f"me:{secret}")]
    return {
        secret,
        *encoded,
        quote(secret, safe=""),
        quote(secret),
        json.dumps(secret)[1:-1],
        secret.partition(" ")[2] or secret,
    }
