"""Service accounts of the lab with few rights, and kubeconfigs for them."""

import base64
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

from bench.files.folders import find_shipped
from bench.files.yaml_source import read_documents
from bench.k8s.client import Cluster, Object, Ref, ref_of
from bench.k8s.wait import wait_for
from bench.system.cancellation import CancelToken
from tests.cluster.job import delete_named
from tests.cluster.lab import kubeconfig

RIGHTS: Final = "rbac.authorization.k8s.io/v1"
_FILES: Final = {"run": "run.yaml", "install": "install-mesh.yaml", "prometheus": "prometheus.yaml"}


@dataclass(frozen=True)
class Account:
    """A service account in its own namespace; `bindings` grant its roles."""

    cluster: Cluster
    namespace: str
    bindings: tuple[Ref, ...]

    def token(self, name: str) -> str:
        """A token that is valid until its Secret, which gets this name, is deleted."""
        annotations = {"kubernetes.io/service-account.name": "default"}
        metadata = {"name": name, "namespace": self.namespace, "annotations": annotations}
        kind = "kubernetes.io/service-account-token"
        self.cluster.create({"apiVersion": "v1", "kind": "Secret", "type": kind, "metadata": metadata})
        (secret,) = wait_for(self.cluster, self._secret(name), _is_filled, timeout_s=30, watch=CancelToken())
        return base64.b64decode(secret["data"]["token"]).decode()

    def revoke(self, name: str) -> None:
        """Delete the token's Secret, so that the token is no longer accepted."""
        delete_named(self.cluster, self._secret(name))

    def disarm(self) -> None:
        """Delete the account's bindings, so that it has no rights."""
        for binding in self.bindings:
            delete_named(self.cluster, binding)

    def _secret(self, name: str) -> Ref:
        return Ref("v1", "Secret", name, self.namespace)


def _is_filled(secrets_: tuple[Object, ...]) -> bool:
    return bool(secrets_) and "token" in secrets_[0].get("data", {})


@contextmanager
def account(cluster: Cluster, *roles: str) -> Iterator[Account]:
    """A new account with copies of the shipped roles of these names (`run`, `install`)."""
    name = f"t-account-{secrets.token_hex(3)}"
    place = Ref("v1", "Namespace", name)
    things = [thing for role in roles for thing in bind_role(role, "default", name)]
    try:
        cluster.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
        wait_for(cluster, Ref("v1", "ServiceAccount", "default", name), bool, timeout_s=30, watch=CancelToken())
        for thing in things:
            cluster.create(thing)
        bindings = tuple(ref_of(thing) for thing in things if thing["kind"] == "ClusterRoleBinding")
        yield Account(cluster, name, bindings)
    finally:
        for ref in (*map(ref_of, things), place):
            delete_named(cluster, ref)


def bind_role(role: str, account: str, namespace: str) -> tuple[Object, Object]:
    """A copy of a shipped ClusterRole, and its binding to an account."""
    name = f"{namespace}-{account}-{role}"
    (shipped_role,) = [one.value for one in read_documents(find_shipped("manifests") / "rbac" / _FILES[role])]
    reference = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": name}
    subject = {"kind": "ServiceAccount", "name": account, "namespace": namespace}
    binding = {"apiVersion": RIGHTS, "kind": "ClusterRoleBinding", "metadata": {"name": name}}
    return {**shipped_role, "metadata": {"name": name}}, {**binding, "roleRef": reference, "subjects": [subject]}


def token_user(token: str) -> dict[str, Any]:
    """A kubeconfig's user."""
    return {"token": token}


def write_kubeconfig(path: Path, user: dict[str, Any] | None = None, *, context: str = "") -> Path:
    """Write the lab's kubeconfig with another user, if one is given, and another name for its context."""
    content = yaml.safe_load(kubeconfig().read_text("utf-8"))
    if user is not None:
        content["users"][0]["user"] = user
    if context:
        content["contexts"][0]["name"] = content["current-context"] = context
    path.write_text(yaml.safe_dump(content), "utf-8")
    return path
