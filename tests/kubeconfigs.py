"""Kubeconfigs of clusters that do not exist, and the credentials that meshbench reads from them."""

from pathlib import Path
from typing import Any

import yaml

from bench.k8s.credentials import Credentials, read_credentials
from bench.k8s.kubeconfig import read_context, write_private_kubeconfig

HIDDEN = "hidden-t0ken"


def write_kubeconfig(path: Path, *names: str, user: dict[str, Any] | None = None, **cluster: Any) -> Path:
    """Write contexts of these names, the first one current; `cluster` are keys of each cluster, such as its server."""
    content = {
        "current-context": names[0],
        "contexts": [{"name": name, "context": {"cluster": f"{name}-c", "user": f"{name}-u"}} for name in names],
        "clusters": [
            {"name": f"{name}-c", "cluster": {"server": f"https://{name}.example:6443", **cluster}} for name in names
        ],
        "users": [{"name": f"{name}-u", "user": user or {"token": f"secret-of-{name}"}} for name in names],
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(content), "utf-8")
    return path


def read_user(folder: Path, user: dict[str, Any], **cluster: str) -> Credentials:
    """Read the credentials of a private copy with this user."""
    path = write_kubeconfig(folder / "config", "a", user=user, **cluster)
    (folder / "private").mkdir()
    return read_credentials(write_private_kubeconfig(read_context((path,), "a"), folder / "private"))
