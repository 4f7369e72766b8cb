"""Whole runs with kubeconfigs that people have: behind a proxy, and with a login that expires."""

import json
import shlex
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import pytest
import yaml

from bench.k8s.client import Cluster
from bench.k8s.ownership import OURS
from bench.k8s.plugin import API_VERSIONS
from tests.cluster.accounts import account, write_kubeconfig
from tests.cluster.job import MEASURED, run_command, run_job
from tests.cluster.lab import kubeconfig
from tests.command import Command
from tests.proxies import PASSWORD, USER, serve_proxy

pytestmark = pytest.mark.usefixtures("as_before")

EXPIRED = "the session has expired, log in again"


@pytest.mark.parametrize("scheme", ["http", pytest.param("socks5", marks=pytest.mark.soak("cluster"))])
def test_run_behind_a_proxy_is_complete(tmp_path: Path, scheme: str) -> None:
    """Requests, commands, forwarded ports and the rows of the load go through it; its password is in no file."""
    content = yaml.safe_load(kubeconfig().read_text("utf-8"))
    server = urlsplit(content["clusters"][0]["cluster"]["server"])
    assert server.port
    with serve_proxy(scheme, server.port, password=True) as (address, seen):
        url = f"{scheme}://{USER}:{quote(PASSWORD, safe='')}@{address}"
        content["clusters"][0]["cluster"]["proxy-url"] = url
        (tmp_path / "config").write_text(yaml.safe_dump(content), "utf-8")
        job = run_job(tmp_path, env={"KUBECONFIG": str(tmp_path / "config")})
    assert job.exit_code in MEASURED, job.output
    assert len(job.trials()) == 1
    assert (len(seen.hosts) > 5, seen.refused) == (True, 0)
    for path in job.folder.rglob("*"):
        assert not path.is_file() or PASSWORD.encode() not in path.read_bytes(), path


def plugin(folder: Path) -> dict[str, Any]:
    """Return a user whose plugin prints the token of a file, and fails where there is none."""
    version = API_VERSIONS[0]
    body = json.dumps({"apiVersion": version, "kind": "ExecCredential", "status": {"token": "%s"}})
    script = (
        f"token=$(cat {folder}/session 2> /dev/null) || {{ echo '{EXPIRED}' >&2; exit 255; }}; "
        f"printf '{body}' \"$token\""
    )
    return {"exec": {"apiVersion": version, "command": "sh", "args": ["-c", script], "interactiveMode": "IfAvailable"}}


def test_login_that_expires_in_a_run_leaves_the_command(cluster: Cluster, tmp_path: Path) -> None:
    """The run ends with the plugin's message; after a new login the command that it printed removes what it left."""
    with account(cluster, "run") as mine:
        config = write_kubeconfig(tmp_path / "config", plugin(tmp_path))
        (tmp_path / "session").write_text(mine.token("first"), "utf-8")
        environment = {"KUBECONFIG": str(config)}

        def expire(command: Command) -> None:
            command.line("stage", stage="deployed")
            (tmp_path / "session").unlink()
            mine.revoke("first")

        job = run_job(tmp_path, during=expire, env=environment)
        assert job.exit_code in (4, 5, 7), job.output
        assert EXPIRED in job.message, job.output
        assert cluster.list("v1", "Namespace", labels=OURS), "it left nothing"
        (tmp_path / "session").write_text(mine.token("second"), "utf-8")
        printed = next(line for line in job.message.splitlines() if "meshbench cleanup" in line)
        words = shlex.split(printed[printed.index("meshbench cleanup") :].split(";")[0])
        cleaned = run_command(tmp_path, *words[1:], env=environment)
        assert cleaned.exit_code == 0, cleaned.output
