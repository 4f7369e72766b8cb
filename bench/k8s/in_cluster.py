"""Reach the cluster that this pod runs on, with the pod's own account, as any program in a pod does.

The kubelet renews the token in its file, so the file is named and read again, never its content kept.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Final

from bench.errors import RefusedError
from bench.k8s.kubeconfig_types import Context

IN_CLUSTER: Final = "in-cluster"  # the name of the context; the one of a kubeconfig may not be meant
ACCOUNT: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount")


def read_own_context(environment: Mapping[str, str], account: Path = ACCOUNT) -> Context:
    """Return the context of the pod that this is. Raises RefusedError outside of a pod, and without an account."""
    host, port = environment.get("KUBERNETES_SERVICE_HOST", ""), environment.get("KUBERNETES_SERVICE_PORT", "443")
    if not host:
        raise RefusedError("--in-cluster: no pod: KUBERNETES_SERVICE_HOST is not set; hint: give --context NAME")
    token, authority = account / "token", account / "ca.crt"
    for file in (token, authority):
        if not file.is_file():
            raise RefusedError(
                f"--in-cluster: there is no {file}; hint: give the pod a serviceAccountName, and leave"
                " automountServiceAccountToken as it is"
            )
    address = f"[{host}]" if ":" in host else host
    cluster = {"server": f"https://{address}:{port}", "certificate-authority": str(authority)}
    return Context(IN_CLUSTER, IN_CLUSTER, cluster, IN_CLUSTER, {"tokenFile": str(token)})
