"""Probe pods: one for each service account whose calls prove something, and one outside the mesh.

A probe pod stands in for the workload of its account: the same account and labels, so every policy takes it for that
workload. It is never Ready, so no Service sends it a request.
"""

import base64
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import repeat
from pathlib import Path
from typing import Any, Final

from cryptography import x509

from bench.application.model import PATHS, Application, Workload
from bench.errors import BadAnswerError, DeployError
from bench.files.folders import find_shipped
from bench.files.yaml_source import read_documents
from bench.k8s.client import Cluster, Object
from bench.meshes.probe import Probe
from bench.targets.cluster.probes import agent
from bench.verification.prober import OUTSIDE, Question
from bench.verification.questions import Answer, Handshake, format_error

Json = dict[str, Any]

CONTAINER: Final = "probe-agent"
_SCRIPT: Final = "meshbench-probe-agent"
_FOLDER: Final = "/meshbench"
_ARGV: Final = ("python3", f"{_FOLDER}/agent.py")
_UID: Final = 1000  # the image names its user, and Kubernetes accepts only a number as not root
_START_S: Final = 10.0
_SERIES_S: Final = 60.0  # a long series of pages, on a busy cluster
_WEEK_S: Final = 7 * 24 * 3600


@dataclass(frozen=True, slots=True)
class ClusterProber:
    """The probe pods of one deployment; `outside` is the namespace of the one that is not in the mesh."""

    cluster: Cluster
    application: Application
    outside: str

    def ask(self, questions: Sequence[Question]) -> tuple[Answer, ...]:
        """See `Prober`; the questions of one caller are sent together, one after another."""
        answers: dict[int, Answer] = {}
        for caller in dict.fromkeys(question.caller for question in questions):
            indexes = [index for index, question in enumerate(questions) if question.caller == caller]
            received = self._ask_caller(caller, [questions[index] for index in indexes])
            answers.update(zip(indexes, received, strict=True))
        return tuple(answers[index] for index in range(len(questions)))

    def pages(self, user: str, count: int) -> tuple[Answer, ...]:
        """See `Prober`."""
        caller, entry = self.application.calls[0]
        question = {**question_json(Question(caller, entry, path="/productpage"), self.application), "user": user}
        (answer,) = self._run_agent(caller, [{**question, "times": count}], timeout_s=_SERIES_S)
        return read_series(answer, pod_name(caller), most=count + 1)

    def _ask_caller(self, caller: str, questions: Sequence[Question]) -> list[Answer]:
        encoded = [question_json(question, self.application) for question in questions]
        answers = self._run_agent(caller, encoded, timeout_s=2 * agent.TIMEOUT_S * len(encoded))
        with _reject_malformed(pod_name(caller)):
            return [read_answer(one) for one in answers]

    def _run_agent(self, caller: str, questions: Sequence[Json], *, timeout_s: float) -> list[Json]:
        """Run the probe agent in the caller's pod and return its answers."""
        lines = json.dumps(questions) + "\n"
        pod = pod_name(caller)
        ran = self.cluster.exec(
            pod,
            _ARGV,
            namespace=self.outside if caller == OUTSIDE else self.application.namespace,
            container=CONTAINER,
            stdin=lines.encode(),
            timeout_s=_START_S + timeout_s,
        )
        if ran.exit_code != 0:
            last = ran.stderr.strip().rpartition("\n")[2][-300:]
            raise DeployError(f"{pod}: the probe agent failed: exit code {ran.exit_code}: {last or 'no output'}")
        return parse_answers(ran.stdout, pod, count=len(questions))


def parse_answers(output: bytes, pod: str, *, count: int) -> list[Json]:
    """Parse a probe agent's answers to `count` questions. Raises BadAnswerError."""
    try:
        answers = json.loads(output)
    except (ValueError, RecursionError) as error:
        raise BadAnswerError(f"{pod}: its answers are not JSON") from error
    if not isinstance(answers, list) or len(answers) != count or not all(isinstance(one, dict) for one in answers):
        raise BadAnswerError(f"{pod}: its answers are not those to {count} questions")
    return answers


def read_series(answered: Json, pod: str, *, most: int) -> tuple[Answer, ...]:
    """Read the answers of one question, each as often as it came: no more than `most`. Raises BadAnswerError."""
    with _reject_malformed(pod):
        counts = [int(one["count"]) for one in answered["answers"]]
        if min(counts, default=0) < 0 or sum(counts) > most:
            raise ValueError("more answers than questions")
        return tuple(answer for one in answered["answers"] for answer in repeat(read_answer(one), int(one["count"])))


@contextmanager
def _reject_malformed(pod: str) -> Iterator[None]:
    """Turn what cannot be read in a probe agent's answers into one error."""
    try:
        yield
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise BadAnswerError(f"{pod}: its answers are invalid ({type(error).__name__})") from error


def find_callers(application: Application, probes: Iterable[Probe]) -> tuple[str, ...]:
    """Return the callers of the application's own calls, and those of the probes."""
    names = {workload.account: workload.name for workload in application.everyone}
    probing = (names[probe.caller] for probe in probes if probe.caller is not None)
    return tuple(dict.fromkeys((*(caller for caller, _ in application.calls), *probing)))


def probe_objects(
    application: Application, callers: Iterable[str], *, image: str, uid: int | None = _UID
) -> tuple[Object, ...]:
    """Return the probe pods of these workloads, in the application's namespace, with their script and the client's
    account. They are new for each deployment, since a sidecar is injected only when a pod is created.

    `image` is the load's, which has Python; `uid` as in `uid_for`.
    """
    namespace, port = application.namespace, application.services[0].port
    workloads = [application.workload(caller) for caller in callers]
    pods = (_stand_in(workload, _pod(workload.name, namespace, image, uid), port=port) for workload in workloads)
    return (_account(namespace), _script(namespace), *pods)


def outside_objects(namespace: str, *, image: str, uid: int | None = _UID) -> tuple[Object, ...]:
    """Return the pod outside the mesh, for a namespace of its own, and its script."""
    pod = _pod(OUTSIDE, namespace, image, uid)
    spec = {**pod["spec"], "automountServiceAccountToken": False}
    return (_script(namespace), {**pod, "spec": spec})


def is_probe_ready(pod: Object) -> bool:
    """Return whether a probe pod is up: its own container runs, and every sidecar is ready."""
    status = pod.get("status", {})
    own = [one for one in status.get("containerStatuses") or () if one["name"] == CONTAINER]
    others = [
        one
        for key in ("containerStatuses", "initContainerStatuses")
        for one in status.get(key) or ()
        if one["name"] != CONTAINER
    ]
    return bool(own) and "running" in own[0]["state"] and all(map(_is_done_or_ready, others))


def _is_done_or_ready(status: Mapping[str, Any]) -> bool:
    return bool(status["ready"])  # an init container that has to end is ready once it has ended well


def pod_name(caller: str) -> str:
    """Return the name of the probe pod of `caller`."""
    return f"probe-{caller}"


def question_json(question: Question, application: Application) -> dict[str, Any]:
    """Return a question as the probe agent reads it."""
    service = application.service(question.workload)
    domain = f".{application.namespace}.svc" if question.caller == OUTSIDE else ""
    return {
        "host": f"{service.name}{domain}",
        "port": service.port,
        "method": question.method,
        "path": question.path or PATHS[application.workload(question.workload).app],
        "headers": {"Host": f"{service.name}:{service.port}"},  # as in the application's own calls
        "tls": question.tls,
    }


def read_answer(fields: Mapping[str, Any]) -> Answer:
    """Read an answer of the probe agent."""
    refused = format_error(fields["error"], fields["message"], timeout_s=agent.TIMEOUT_S) if fields["error"] else ""
    body = base64.b64decode(fields["body"])
    handshake = _handshake(fields["tls"]) if fields["tls"] else None
    return Answer(fields["status"], body, fields["headers"], handshake, refused)


def _handshake(fields: Mapping[str, str]) -> Handshake:
    ids = spiffe_ids(base64.b64decode(fields["certificate"]))
    return Handshake(fields["version"], fields["cipher"], "", ids[0] if ids else "")


def spiffe_ids(certificate: bytes) -> tuple[str, ...]:
    """Return the SPIFFE ids in a certificate (DER); it may carry other URIs."""
    try:
        names = x509.load_der_x509_certificate(certificate).extensions.get_extension_for_class(
            x509.SubjectAlternativeName
        )
    except x509.ExtensionNotFound:
        return ()
    uris = names.value.get_values_for_type(x509.UniformResourceIdentifier)
    return tuple(uri for uri in uris if uri.startswith("spiffe://"))


def _script(namespace: str) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": _SCRIPT, "namespace": namespace},
        "data": {"agent.py": Path(agent.__file__).read_text("utf-8")},
    }


def _account(namespace: str) -> Object:
    """Return the load's account, which the client's probe pod needs before there is a load."""
    (document,) = read_documents(find_shipped("manifests") / "load" / "account.yaml")
    return {**document.value, "metadata": {**document.value["metadata"], "namespace": namespace}}


def _stand_in(workload: Workload, pod: Object, *, port: int) -> Object:
    """Return a pod that a mesh takes for the workload's: account, labels and port are the same."""
    (container,) = pod["spec"]["containers"]
    listening = {
        **container,
        "ports": [{"name": "http", "containerPort": port}],
        # Not checked in its first week, so never ready: neither kube-proxy nor a mesh sends it requests.
        "readinessProbe": {"exec": {"command": ["false"]}, "initialDelaySeconds": _WEEK_S},
    }
    return {
        **pod,
        "metadata": {**pod["metadata"], "labels": dict(workload.labels)},
        "spec": {
            **pod["spec"],
            "serviceAccountName": workload.account,
            "automountServiceAccountToken": True,  # Kuma's sidecars show it to their control plane
            "containers": [listening],
        },
    }


def _pod(caller: str, namespace: str, image: str, uid: int | None) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": pod_name(caller), "namespace": namespace},
        "spec": {
            "terminationGracePeriodSeconds": 1,
            "securityContext": {"seccompProfile": {"type": "RuntimeDefault"}},
            "containers": [_container(image, uid)],
            "volumes": [{"name": "script", "configMap": {"name": _SCRIPT}}],
        },
    }


def _container(image: str, uid: int | None) -> dict[str, Any]:
    """Return the container, which waits for commands. That it is not root is set here, not for the pod: a mesh's init
    container is."""
    user = {} if uid is None else {"runAsUser": uid}
    rights = {"runAsNonRoot": True, "allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
    return {
        "name": CONTAINER,
        "image": image,
        "imagePullPolicy": "IfNotPresent",
        "command": ["sleep", "infinity"],
        "resources": {"requests": {"cpu": "10m", "memory": "32Mi"}, "limits": {"memory": "128Mi"}},
        "securityContext": {**rights, **user},
        "volumeMounts": [{"name": "script", "mountPath": _FOLDER, "readOnly": True}],
    }
