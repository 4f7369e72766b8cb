"""Answer the questions of proofs on a cluster: requests of probe pods, what sidecars and the API server report."""

import base64
import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import repeat
from pathlib import Path
from typing import Any, Final, TypeVar

from cryptography import x509

from bench.application.model import GATEWAY, Application
from bench.errors import BadAnswerError, DeployError, reject_malformed
from bench.k8s.client import Cluster, Object, Ref
from bench.k8s.diagnose import is_of_job
from bench.k8s.objects import name_of, names_of
from bench.k8s.ownership import COMPONENT
from bench.k8s.pod_page import fetch_page
from bench.k8s.retry import retry_after_outage
from bench.meshes import MESHES
from bench.meshes.cluster_protocol import ControlPlane
from bench.meshes.control_planes import CONTROL_PLANES
from bench.meshes.protocols import RequestPage
from bench.results.store import make_file_name, write_text
from bench.system.cancellation import CancelToken
from bench.targets.cluster.application_manifests import pods_in_mesh, pods_with_sidecar
from bench.targets.cluster.load.pod import KEEPER, NAME
from bench.targets.cluster.probes import agent
from bench.targets.cluster.probes.injection import WEBHOOKS, find_other_images, read_mesh_state, read_namespace_state
from bench.targets.cluster.probes.pods import ARGV, CONTAINER, pod_name, probe_namespace
from bench.verification.counts import ask_proxy
from bench.verification.prober import State, Topic, name_replica, workload_of
from bench.verification.questions import FRONT, OUTSIDE, Answer, Handshake, Question, format_error

Json = dict[str, Any]
T = TypeVar("T")

_START_S: Final = 10.0
_SERIES_S: Final = 60.0  # a long series of pages, on a busy cluster
_OMITTED: Final = {Topic.CALLER_CERTIFICATES: "the keys of workloads stay in their sidecars"}


@dataclass(frozen=True, slots=True)
class ClusterProber:
    """See `bench.verification.prober.Prober`. `outside` is the namespace of the probe pod that is not in the mesh;
    `plane` is None without a mesh; `absent` are the meshes that must not be there meanwhile; `sidecar_image` is that of
    this configuration, empty for the mesh's; `containers` are the names of the application's own."""

    cluster: Cluster
    application: Application
    outside: str
    plane: ControlPlane | None = None
    absent: tuple[str, ...] = ()
    watch: CancelToken = field(default_factory=CancelToken)
    sidecar_image: str = ""
    containers: frozenset[str] = frozenset()

    @property
    def omitted(self) -> Mapping[Topic, str]:
        return _OMITTED

    def read_state(self) -> State:
        others = {mesh: CONTROL_PLANES[mesh].find_installed(self.cluster) for mesh in self.absent}
        state = self._read_namespace() if self.plane is None else self._read_mesh(self.plane)
        return replace(state, others=others)

    def _read_namespace(self) -> State:
        name = self.application.namespace
        namespace = self.cluster.get(Ref("v1", "Namespace", name)) or {"metadata": {"name": name}}
        apps = (workload.app for workload in self.application.workloads)
        own = {*apps, *self.containers, NAME, KEEPER, CONTAINER}
        return read_namespace_state(namespace, self.loaded_pods(), self.cluster.list(*WEBHOOKS), own=own)

    def _read_mesh(self, plane: ControlPlane) -> State:
        state = read_mesh_state(pods_with_sidecar(self.pods_in_mesh()), plane.SIDECAR)
        if self.sidecar_image:
            loaded = pods_with_sidecar(pods_in_mesh(self.loaded_pods(), self.application))
            others = find_other_images(loaded, plane.SIDECAR, self.sidecar_image)
            state = replace(state, image=self.sidecar_image, other_images=others)
        return replace(state, unsynced=self.find_unsynced()) if state.askable else state

    def find_unsynced(self) -> str:
        """Return which sidecars have not acknowledged the newest configuration; empty if all have."""
        if self.plane is None:
            return ""
        names: dict[str, list[str]] = {}
        for pod in self.pods_in_mesh():
            names.setdefault(pod["metadata"]["namespace"], []).append(pod["metadata"]["name"])
        found = (self.plane.find_unsynced(self.cluster, space, pods) for space, pods in names.items())
        return "; ".join(filter(None, found))

    def find_pods(self, component: str) -> tuple[Object, ...]:
        """Return the pods of a component of the run, without those of Jobs, which have ended."""
        labels = f"{COMPONENT}={component}"
        listed = (self.cluster.list("v1", "Pod", namespace=space, labels=labels) for space in self.application.spaces)
        return tuple(pod for pods in listed for pod in pods if not is_of_job(pod))

    def loaded_pods(self) -> tuple[Object, ...]:
        """Return the pods through which the load goes."""
        return (*self.find_pods("application"), *self.find_pods("load"))

    def pods_in_mesh(self) -> tuple[Object, ...]:
        """Return the pods that the control plane knows."""
        return pods_in_mesh((*self.loaded_pods(), *self.find_pods("probe")), self.application)

    def proxies(self) -> Mapping[str, RequestPage]:
        if self.plane is None:
            return {}
        loaded = pods_in_mesh(self.loaded_pods(), self.application)
        pods, spaces = names_of(loaded), {name_of(pod): pod["metadata"]["namespace"] for pod in loaded}
        ask, found, counted = self.plane.admin, dict[str, RequestPage](), Counter[str]()
        for pod, workload in sorted(pods.items()):
            proxy = name_replica(workload, counted[workload])
            found[proxy] = partial(ask, self.cluster, pod, namespace=spaces[pod])
            counted[workload] += 1
        gateway = self.application.gateway
        if gateway is None or gateway.proxy is None:
            return found
        port = gateway.proxy["admin"]["address"]["socket_address"]["port_value"]
        pod = next(pod for pod, workload in pods.items() if workload == GATEWAY)
        return {**found, FRONT: partial(self._ask_front, pod, port)}

    def _ask_front(self, pod: str, port: int, path: str) -> str:
        """Ask a delegated gateway's own proxy, which answers on the admin interface of its configuration."""
        namespace = self.application.namespace
        who = f"the proxy of {namespace}/{pod}"
        return fetch_page(self.cluster, pod, port, namespace=namespace, path=path, who=who)

    def read_configurations(self, kept: Path) -> Mapping[str, str]:
        if self.plane is None:
            return {}
        question = MESHES[self.plane.NAME].data_plane.configuration
        # The proxies of a workload's other pods have the same configuration.
        proxies = {name: page for name, page in self.proxies().items() if name in (workload_of(name), FRONT)}
        proxies.pop(FRONT, None)
        configurations = {name: ask_proxy(name, page, question) for name, page in proxies.items()}
        kept.mkdir(exist_ok=True)
        for name, configuration in configurations.items():
            write_text(kept / make_file_name(f"{name}.json"), configuration)
        return configurations

    def retry(self, act: Callable[[], T]) -> T:
        return retry_after_outage(self.cluster, act, watch=self.watch)

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
        login = self.application.definition.login
        question = {**question_json(Question(caller, entry), self.application), "times": count, "login": None}
        if login and user:
            form = login.fill_form(user)
            question["login"] = {"path": login.path, "form": form, "cookie": login.cookie, "user": user}
        (answer,) = self._run_agent(caller, [question], timeout_s=_SERIES_S)
        return read_series(answer, pod_name(caller), most=count + 1)

    def _ask_caller(self, caller: str, questions: Sequence[Question]) -> list[Answer]:
        alpn = MESHES[self.plane.NAME].data_plane.wire.alpn if self.plane else ""
        encoded = [question_json(question, self.application, alpn) for question in questions]
        answers = self._run_agent(caller, encoded, timeout_s=2 * agent.TIMEOUT_S * len(encoded))
        with reject_malformed(pod_name(caller)):
            return [read_answer(one) for one in answers]

    def _run_agent(self, caller: str, questions: Sequence[Json], *, timeout_s: float) -> list[Json]:
        """Run the probe agent in the caller's pod and return its answers."""
        lines = json.dumps(questions) + "\n"
        pod = pod_name(caller)
        ran = self.cluster.exec(
            pod,
            ARGV,
            namespace=self.outside if caller == OUTSIDE else probe_namespace(self.application, caller),
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
    with reject_malformed(pod):
        counts = [int(one["count"]) for one in answered["answers"]]
        if min(counts, default=0) < 0 or sum(counts) > most:
            raise ValueError("more answers than questions")
        return tuple(answer for one in answered["answers"] for answer in repeat(read_answer(one), int(one["count"])))


def question_json(question: Question, application: Application, alpn: str = "") -> dict[str, Any]:
    """Return a question as the probe agent reads it. `alpn` is what the client sides of sidecars offer."""
    workload = application.workload(question.workload)
    service, namespace = application.called_as(workload, own=True), application.namespace_of(workload)
    is_outside = question.caller == OUTSIDE
    is_elsewhere = not is_outside and namespace != probe_namespace(application, question.caller)
    name = f"{service.name}.{namespace}" if is_elsewhere else service.name
    return {
        "host": f"{service.name}.{namespace}.svc" if is_outside else name,
        "port": service.port,
        "method": question.method,
        "path": question.path or application.path_of(workload.app),
        "headers": {"Host": f"{name}:{service.port}", **dict(question.headers)},  # as in the application's own calls
        "tls": question.tls,
        "alpn": [alpn] if alpn else [],
    }


def read_answer(fields: Mapping[str, Any]) -> Answer:
    """Read an answer of the probe agent. Raises ValueError or another error of reading for an invalid one."""
    refused = format_error(fields["error"], fields["message"], timeout_s=agent.TIMEOUT_S) if fields["error"] else ""
    body = base64.b64decode(fields["body"])
    handshake = _read_handshake(fields["tls"]) if fields["tls"] else None
    status, headers = fields["status"], {**fields["headers"]}
    if type(status) is not int or not all(isinstance(part, str) for item in headers.items() for part in item):
        raise ValueError("its status or headers are of another type")
    return Answer(status, body, headers, handshake, refused)


def _read_handshake(fields: Mapping[str, Any]) -> Handshake:
    ids = spiffe_ids(base64.b64decode(fields["certificate"]))
    return Handshake(str(fields["version"]), str(fields["cipher"]), "", ids[0] if ids else "")


def spiffe_ids(certificate: bytes) -> tuple[str, ...]:
    """Return the SPIFFE ids in a certificate (DER); it may carry other URIs. Raises ValueError for an invalid one."""
    try:
        names = x509.load_der_x509_certificate(certificate).extensions.get_extension_for_class(
            x509.SubjectAlternativeName
        )
    except x509.ExtensionNotFound:
        return ()
    except (x509.DuplicateExtension, x509.InvalidVersion, x509.UnsupportedGeneralNameType) as error:
        raise ValueError(f"its certificate is not valid: {type(error).__name__}") from error
    uris = names.value.get_values_for_type(x509.UniformResourceIdentifier)
    return tuple(uri for uri in uris if uri.startswith("spiffe://"))
