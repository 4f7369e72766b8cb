"""Edges of what people write: scenarios, manifests, kubeconfigs and what their credential plugins print."""

import json
from pathlib import Path
from typing import Final

import yaml
from hypothesis import strategies as st

from bench.cli.validate import find_obstacles
from bench.errors import InputError, RefusedError
from bench.files.folders import find_shipped
from bench.k8s import plugin
from bench.k8s.credentials import read_credentials
from bench.k8s.kubeconfig import read_context, write_private_kubeconfig
from bench.meshes import MESHES
from bench.meshes.resolved import resolve_file
from bench.system.processes import Ran
from tests.fuzz.edge import Case, Cases, Edge, Read
from tests.fuzz.mutations import mutate, mutate_bytes
from tests.policies import SCENARIO


def _mutate_yaml(text: str) -> st.SearchStrategy[bytes]:
    """Return documents like those of a YAML text, and texts that are none."""
    documents = [one for one in yaml.safe_load_all(text) if one is not None]
    changed = mutate(documents).map(_dump)
    return st.one_of(changed, changed, changed, mutate_bytes(text.encode()))


def _dump(documents: object) -> bytes:
    listed = documents if isinstance(documents, list) else [documents]
    return yaml.safe_dump_all(listed, allow_unicode=True).encode("utf-8", "surrogatepass")


def _prepare_scenarios(folder: Path) -> tuple[Cases, Read]:
    """The shipped scenarios."""
    texts = [path.read_text("utf-8") for path in sorted(find_shipped("scenarios").glob("*.yaml"))]
    path = folder / "mine.yaml"

    def read(content: bytes) -> None:
        path.write_bytes(content)
        find_obstacles(resolve_file(path))

    return st.sampled_from(texts).flatmap(_mutate_yaml), read


def _prepare_manifests(folder: Path) -> tuple[Cases, Read]:
    """The shipped policies and routes of each mesh."""
    (folder / "policies").mkdir()
    files = [(mesh, path) for mesh in MESHES for path in sorted((find_shipped("manifests") / mesh).rglob("*.yaml"))]
    texts = [(mesh, text) for mesh, path in files if len(text := path.read_text("utf-8")) < 8192]

    def read(case: Case) -> None:
        mesh, content = case
        (folder / "policies" / "a.yaml").write_bytes(content)
        (folder / "own.yaml").write_text(SCENARIO.replace("MESH", mesh), "utf-8")
        find_obstacles(resolve_file(folder / "own.yaml"))

    return st.sampled_from(texts).flatmap(lambda one: st.tuples(st.just(one[0]), _mutate_yaml(one[1]))), read


_KUBECONFIG: Final = {
    "apiVersion": "v1",
    "kind": "Config",
    "current-context": "lab",
    "contexts": [{"name": "lab", "context": {"cluster": "c", "user": "u", "namespace": "n"}}],
    "clusters": [{"name": "c", "cluster": {"server": "https://lab.example:6443", "tls-server-name": "lab"}}],
    "users": [{"name": "u", "user": {"token": "an-0paque-t0ken", "username": "me", "password": "hidd3n"}}],
}
_PROXIED: Final = {
    **_KUBECONFIG,
    "clusters": [
        {"name": "c", "cluster": {"server": "http://lab.example", "proxy-url": "http://me:hidd3n@proxy.example:3128"}},
        {"name": "c", "cluster": {"server": "https://lab.example", "certificate-authority-data": "LS0tLS1CRUdJTg=="}},
    ],
    "users": [{"name": "u", "user": {"client-certificate-data": "LS0t", "client-key-data": "LS0t", "tokenFile": "t"}}],
}


def _prepare_kubeconfigs(folder: Path) -> tuple[Cases, Read]:
    """Kubeconfigs, without programs that would be started."""
    path, private = folder / "config", folder / "private"
    private.mkdir()
    (folder / "t").write_text("an-0paque-t0ken\n", "utf-8")

    def read(content: bytes) -> None:
        path.write_bytes(content)
        context = read_context((path,), "lab")
        if "exec" not in context.user:
            read_credentials(write_private_kubeconfig(context, private))

    return st.sampled_from((_KUBECONFIG, _PROXIED)).flatmap(lambda one: _mutate_yaml(yaml.safe_dump(one))), read


def _prepare_plugins(_folder: Path) -> tuple[Cases, Read]:
    """What credential plugins print."""
    version = plugin.API_VERSIONS[0]
    status = {"token": "an-0paque-t0ken", "clientCertificateData": "LS0t", "clientKeyData": "LS0t"}
    printed = {"apiVersion": version, "kind": "ExecCredential", "status": status}

    def read(content: bytes) -> None:
        plugin._read_credentials(Ran(0, content, ""), version, "a plugin")  # starts no process

    return st.one_of(
        mutate(printed).map(lambda one: json.dumps(one).encode()), mutate_bytes(json.dumps(printed).encode())
    ), read


EDGES: Final = (
    Edge("scenarios", InputError, _prepare_scenarios),
    Edge("manifests", InputError, _prepare_manifests),
    Edge("kubeconfigs", RefusedError, _prepare_kubeconfigs),
    Edge("credential plugins", RefusedError, _prepare_plugins),
)
