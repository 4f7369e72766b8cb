"""Credential plugins of a kubeconfig, as real programs: on a terminal and without one, broken ones, and one whose
session expires during a run."""

import json
import os
import pty
import select
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from bench.errors import ClusterError, ErrorKind, RefusedError, exit_code_of
from bench.k8s.kubeconfig import open_cluster
from bench.k8s.plugin import API_VERSIONS, PluginCredentials, run_plugin
from tests import command
from tests.api_server import ApiServer, serve
from tests.authorities import make_server_tls
from tests.kubeconfigs import HIDDEN, write_kubeconfig

VERSION = API_VERSIONS[0]
EXPIRED = "the session has expired, log in again"


def answer(status: Any, version: str = VERSION) -> str:
    """Return a script that prints credentials."""
    text = json.dumps({"apiVersion": version, "kind": "ExecCredential", "status": status})
    return f"cat <<'END'\n{text}\nEND"


def plugin(script: str, **settings: Any) -> dict[str, Any]:
    """Return the settings of a plugin that runs a shell script."""
    return {"apiVersion": VERSION, "command": "sh", "args": ["-c", script], "interactiveMode": "Never", **settings}


def run(settings: dict[str, Any], **options: Any) -> PluginCredentials:
    return run_plugin(settings, {"server": "https://x"}, where="context a", **options)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (plugin("true", command="meshbench-no-such-plugin"), "is not installed, or not on PATH; hint: install it"),
        (
            plugin("true", command="meshbench-no-such-plugin", installHint="see\nhttps://login.example"),
            "is not installed, or not on PATH; hint: see https://login.example",
        ),
        (plugin("true", command="/etc/hostname"), "does not run: "),
        (plugin(f"echo '{EXPIRED}' >&2; exit 255"), f"ended with exit code 255: {EXPIRED}; hint: log in again"),
        (plugin("exit 3"), "ended with exit code 3: without a message"),
        (plugin("kill -9 $$"), "was ended by SIGKILL"),
        (plugin("printf '\\033[2Jred\\nline' >&2; exit 1"), "exit code 1: [2Jred line;"),
        (plugin(f"echo 'token {HIDDEN}'"), "printed no ExecCredential"),
        (plugin("true"), "printed no ExecCredential"),
        (plugin(f"echo '[\"{HIDDEN}\"]'"), "printed no ExecCredential"),
        (plugin("head -c 3000000 /dev/zero"), "printed no ExecCredential"),
        (plugin("echo '{}'"), "printed no ExecCredential"),
        (plugin(answer({"token": HIDDEN}, "client.authentication.k8s.io/v1beta1")), "printed another apiVersion than"),
        (plugin(answer(None)), "printed neither a token nor a certificate"),
        (plugin(answer([HIDDEN])), "printed credentials that are not text"),
        (plugin(answer({"token": 3})), "printed credentials that are not text"),
        (plugin(answer({"clientKeyData": HIDDEN})), "a key without its certificate"),
        (plugin("true", apiVersion="client.authentication.k8s.io/v1alpha1"), "apiVersion must be"),
        (plugin("true", interactiveMode="Maybe"), "interactiveMode must be"),
    ],
)
def test_broken_plugin_is_one_sentence(settings: dict[str, Any], message: str) -> None:
    """The message is the plugin's where it has one, without control characters; what it printed is never shown."""
    with pytest.raises(RefusedError) as caught:
        run(settings)
    assert str(caught.value).startswith(
        f"context a: no usable credentials: its credential plugin {settings['command']}"
    )
    assert message in str(caught.value)
    assert exit_code_of(caught.value) == 3
    assert HIDDEN not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_plugin_gets_what_client_go_gives(tmp_path: Path) -> None:
    """Its environment, no input, and where it asks for it the cluster with the authority's content."""
    authority, _ = make_server_tls(tmp_path)
    script = f'cat > {tmp_path}/input; echo "$KUBERNETES_EXEC_INFO" > {tmp_path}/info; echo "$OWN" > {tmp_path}/own;'
    cluster = {
        "server": "https://x",
        "certificate-authority": str(authority),
        "tls-server-name": "y",
        "extensions": [{"name": "client.authentication.k8s.io/exec", "extension": {"audience": "me"}}],
    }
    settings = plugin(script + answer({"token": "t"}), env=[{"name": "OWN", "value": "7"}])
    assert run_plugin(settings, cluster, where="context a") == PluginCredentials("t")
    assert json.loads((tmp_path / "info").read_text("utf-8"))["spec"] == {"interactive": False}
    assert ((tmp_path / "own").read_text("utf-8"), (tmp_path / "input").read_text("utf-8")) == ("7\n", "")
    run_plugin({**settings, "provideClusterInfo": True}, cluster, where="context a")
    received = json.loads((tmp_path / "info").read_text("utf-8"))["spec"]["cluster"]
    assert received["config"] == {"audience": "me"}
    assert (received["server"], received["tls-server-name"]) == ("https://x", "y")
    assert received["certificate-authority-data"]


def test_program_that_a_plugin_leaves_behind_is_not_waited_for(tmp_path: Path) -> None:
    """Some start an agent, which keeps their output open. It is not ours to end."""
    began = time.monotonic()
    found = run(plugin(f"sleep 60 & echo $! > {tmp_path}/agent; {answer({'token': 't'})}"))
    assert found == PluginCredentials("t")
    assert time.monotonic() - began < 20
    os.kill(int((tmp_path / "agent").read_text("utf-8")), signal.SIGKILL)  # fails where it is not there


def test_plugin_that_hangs_is_ended(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """In a run its time is short."""
    monkeypatch.setattr("bench.k8s.plugin._RENEWAL_TIMEOUT_S", 1.0)
    with pytest.raises(RefusedError, match="did not end within 1 s; hint: log in again"):
        run(plugin(f"echo $$ > {tmp_path}/pid; sleep 60"), in_run=True)
    assert not Path(f"/proc/{(tmp_path / 'pid').read_text('utf-8').strip()}").exists()


@pytest.mark.parametrize(("in_run", "why"), [(False, "there is none"), (True, "a run that goes on cannot wait")])
def test_plugin_that_needs_a_terminal_is_named(in_run: bool, why: str) -> None:
    """`interactiveMode: Always` in a job without a terminal, or in the middle of a run."""
    with pytest.raises(RefusedError, match=rf"needs a terminal \(interactiveMode: Always\), and {why}"):
        run(plugin("true", interactiveMode="Always"), in_run=in_run)


def on_terminal(folder: Path, settings: dict[str, Any], typed: bytes = b"") -> tuple[int, str]:
    """Run `meshbench doctor` on a terminal with a user of this plugin; return its exit code and what was shown."""
    server = {"server": "http://127.0.0.1:1"}
    config = write_kubeconfig(folder / "config", "sso", user={"exec": settings}, **server)
    shown, own = pty.openpty()
    popen = subprocess.Popen(
        [sys.executable, "-m", "bench.cli.main", "doctor", "--context", "sso"],
        cwd=folder,
        env=command.environment(PYTHONPATH=str(command.ROOT), KUBECONFIG=str(config), HOME=str(folder)),
        stdin=own,
        stdout=own,
        stderr=own,
        start_new_session=True,
    )
    os.close(own)
    os.write(shown, typed)
    text, deadline = b"", time.monotonic() + command.DEADLINE_S
    while time.monotonic() < deadline:
        ready, _, _ = select.select([shown], [], [], 0.1)
        try:
            data = os.read(shown, 65536) if ready else b""
        except OSError:  # the terminal has no more writer
            break
        text += data
        if not data and popen.poll() is not None:
            break
    os.close(shown)
    return popen.wait(10), text.decode("utf-8", "replace")


@pytest.mark.parametrize("mode", ["Never", "IfAvailable", "Always"])
def test_expired_session_on_a_terminal_is_refused(tmp_path: Path, mode: str) -> None:
    """Exit code 3 with the plugin's message, with and without a terminal alike."""
    code, shown = on_terminal(tmp_path, plugin(f"echo '{EXPIRED}' >&2; exit 255", interactiveMode=mode))
    assert code == 3, shown
    assert f"ended with exit code 255: {EXPIRED}" in " ".join(shown.split())
    assert "Traceback" not in shown


def test_plugin_asks_on_the_terminal(tmp_path: Path) -> None:
    """It reads what the user types, and its question is shown before that."""
    script = f'printf "code? " >&2; read code; echo "$code" > {tmp_path}/code; exit 7'
    code, shown = on_terminal(tmp_path, plugin(script, interactiveMode="IfAvailable"), typed=b"12-34\n")
    assert code == 3, shown
    assert "code?" in shown
    assert (tmp_path / "code").read_text("utf-8") == "12-34\n"


class Expiring(ApiServer):
    """An API server that accepts the token of a folder's file."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder = folder
        self.seen = 0

    def answer(
        self, method: str, url: str, body: dict[str, Any], headers: dict[str, str]
    ) -> tuple[int, dict[str, Any]]:
        valid = (self.folder / "valid").read_text("utf-8").strip()
        if {name.lower(): value for name, value in headers.items()}.get("authorization") != f"Bearer {valid}":
            self.seen += 1
            return 401, {"message": "Unauthorized"}
        return super().answer(method, url, body, headers)


def session(folder: Path) -> dict[str, Any]:
    """Return a user whose plugin has a session: the token in a file, or the message where there is none."""
    body = json.dumps({"apiVersion": VERSION, "kind": "ExecCredential", "status": {"token": "%s"}})
    script = (
        f"echo x >> {folder}/asked; "
        f"token=$(cat {folder}/session 2> /dev/null) || {{ echo '{EXPIRED}' >&2; exit 255; }}; "
        f"printf '{body}' \"$token\""
    )
    return {"exec": plugin(script)}


def test_session_that_expires_is_renewed_or_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A new token is used at once. Where there is none, each request fails with the plugin's message, and the plugin is
    not run for each."""
    (tmp_path / "valid").write_text("one", "utf-8")
    (tmp_path / "session").write_text("one", "utf-8")
    server = Expiring(tmp_path)
    with serve(server) as address:
        config = write_kubeconfig(tmp_path / "config", "a", user=session(tmp_path), server=f"http://{address}")
        monkeypatch.setenv("KUBECONFIG", str(config))
        with open_cluster("a", private_folder=tmp_path / "private") as cluster:
            (tmp_path / "valid").write_text("two", "utf-8")
            (tmp_path / "session").write_text("two", "utf-8")
            cluster.read("/version")
            (tmp_path / "session").unlink()
            (tmp_path / "valid").write_text("three", "utf-8")
            for _ in range(5):
                with pytest.raises(ClusterError, match=f"no longer accepted: context a: .*{EXPIRED}") as caught:
                    cluster.read("/version")
                assert caught.value.kind is ErrorKind.UNAUTHORIZED
    assert (tmp_path / "asked").read_text("utf-8").count("x") == 3


def test_session_that_expires_in_a_run_leaves_the_command(tmp_path: Path, output: Path) -> None:
    """The run ends with the failure of its step, and names what it left and the command that removes it."""
    for name in ("valid", "session"):
        (tmp_path / name).write_text("one", "utf-8")
    server = Expiring(tmp_path)

    def expire(method: str, path: str) -> bool:
        if method == "PATCH" and "/namespaces/" in path:  # the first objects of a trial, after its namespaces
            (tmp_path / "valid").write_text("two", "utf-8")
            (tmp_path / "session").unlink(missing_ok=True)
        return False

    server.refuses = expire
    scenario = command.write_scenario(output.parent, [command.BASELINE])
    with serve(server) as address:
        config = write_kubeconfig(tmp_path / "config", "loop", user=session(tmp_path), server=f"http://{address}")
        words = ("run", "--yes", "--context", "loop", "--scenario", str(scenario), "--output", str(output))
        ended = command.call(*words, output=output, env={"KUBECONFIG": str(config), "NO_PROXY": ""})
    assert ended.code == 4, ended.output
    assert EXPIRED in ended.err, ended.output
    assert "meshbench cleanup --context loop" in ended.err, ended.output
    assert "Traceback" not in ended.err, ended.output
