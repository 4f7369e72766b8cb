"""Where and how the local target sends the questions of proofs."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from bench.envoy.certificates import Certificates
from bench.targets.local import prober as local
from bench.targets.local.prober import LocalProber
from bench.targets.local.sidecars import Sidecars
from bench.verification.checks import data_plane_of
from bench.verification.counts import policies_of
from bench.verification.questions import OUTSIDE, Answer, Question
from tests.sidecars import configuration_with, place

SCENE = configuration_with("istio")
PLACEMENT = place("istio", SCENE.application)


def make_prober(folder: Path) -> LocalProber:
    until = datetime(2030, 1, 1, tzinfo=UTC)
    certificates = Certificates(Path("/identities"), until, SCENE.identities, data_plane_of(SCENE).wire)
    return LocalProber(PLACEMENT, Sidecars("istio", PLACEMENT, policies_of(SCENE), certificates, folder), ())


@pytest.mark.parametrize(
    ("question", "port", "certificate", "anonymous"),
    [
        (Question("productpage", "details"), PLACEMENT.outbound["productpage", "details"], "", False),
        (Question(OUTSIDE, "details", headers=(("x-a", "b"),)), PLACEMENT.inbound["details"], "", True),
        (Question(OUTSIDE, "details", tls=True), PLACEMENT.inbound["details"], "bookinfo-details.crt", True),
        (Question("reviews", "details", tls=True), PLACEMENT.inbound["details"], "bookinfo-reviews.crt", False),
    ],
)
def test_sends_question_on_its_path(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, question: Question, port: int, certificate: str, *, anonymous: bool
) -> None:
    """Through the caller's sidecar, or directly to the callee's: in plaintext, or in TLS with or without a
    certificate."""
    sent: list[Any] = []

    def call(port: int, method: str, path: str, *, host: str, identity: Any, anonymous: bool, headers: Any) -> Answer:
        sent.append((port, method, path, host, (identity and identity.certificate.name) or "", anonymous, headers))
        return Answer(200, b"", {})

    monkeypatch.setattr(local, "call", call)
    assert [answer.status for answer in make_prober(tmp_path).ask([question])] == [200]
    headers = dict(question.headers)
    assert sent == [(port, "GET", "/details/0", "details:9080", certificate, anonymous, headers)]


def test_has_admin_interface_of_each_sidecar(tmp_path: Path) -> None:
    """By workload, the client's included; none without a mesh."""
    assert {*make_prober(tmp_path).proxies()} == {one.name for one in SCENE.application.everyone}
    assert LocalProber(PLACEMENT, None, ()).proxies() == {}
