"""Write a run's answer in one sentence per mesh: what each step adds to P95, never without its interval."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from bench.meshes import MESHES
from bench.results.issues import IssueCode
from bench.results.summary_records import Contrast, SummaryRecord
from bench.scenario.model import Configuration, Scenario
from bench.units import format_between, format_rough_change, format_rough_ms

MOST_SENTENCES: Final = 3
MOST_CLAUSES: Final = 4  # of a sentence
_WHY_UNKNOWN: Final = (IssueCode.NO_VALID_REPEAT, IssueCode.NO_PERCENTILE, IssueCode.NO_INTERVAL)
_ITS_POLICIES: Final = "its policies"
_OWN_WORDS: Final = ("nothing is known", "whether ")  # at the start of a clause, where a name keeps its letters
_UNFINISHED: Final = ("running", "interrupted", "failed")

Contrasts = Mapping[tuple[str, str], Contrast]  # by configuration and reference


@dataclass(frozen=True, slots=True)
class Subject:
    """What adds to P95: a mesh's sidecars, its policies, or a configuration by its name."""

    name: str
    plural: bool = False

    @property
    def pronoun(self) -> str:
        return "they do" if self.plural else "it does"

    def does(self, *verbs: str) -> str:
        """Return the subject with the verbs in its number: `its policies add`, `mine raises or lowers`."""
        return f"{self.name} {' or '.join(verb if self.plural else f'{verb}s' for verb in verbs)}"


def format_headline(scenario: Scenario, summary: SummaryRecord) -> tuple[str, ...]:
    """Return the answer in one sentence per mesh, then one for the named pairs between meshes. Empty where the run
    compares nothing, and where it compares too much for sentences: then a table has the answer."""
    groups = _group_contrasts(scenario, summary)
    if not groups or len(groups) > MOST_SENTENCES or max(map(len, groups)) > MOST_CLAUSES:
        return ()
    sentences = (_format_sentence(scenario, group, summary.margin) for group in groups)
    return (*sentences, *_qualify(summary))


def format_application(scenario: Scenario) -> str:
    """Return the application's name as a reader would write it: `Online Boutique` for `online-boutique`."""
    return " ".join(part.capitalize() for part in scenario.application.name.split("-"))


def _qualify(summary: SummaryRecord) -> Iterator[str]:
    """Yield a last sentence where the numbers are not to be relied on."""
    if summary.status in _UNFINISHED:
        yield "The run did not end: this is what it had measured by then."
    elif not summary.valid:
        yield "The run is not valid: do not rely on this."


def _group_contrasts(scenario: Scenario, summary: SummaryRecord) -> list[list[Contrast]]:
    """Return the contrasts on P95 by mesh, each configuration once, then the other named pairs."""
    known = {(c.configuration, c.reference): c for c in summary.contrasts if c.metric == "p95_ms"}
    meshes = dict.fromkeys(c.mesh for c in scenario.configurations)
    steps = {mesh: list(_list_steps(scenario, mesh, known)) for mesh in meshes}
    done = [contrast for group in steps.values() for contrast in group]
    others = [contrast for contrast in known.values() if contrast.named and contrast not in done]
    return [group for group in (*steps.values(), others) if group]


def _list_steps(scenario: Scenario, mesh: str, known: Contrasts) -> Iterator[Contrast]:
    """Yield the contrast of each configuration of a mesh with its base."""
    before: list[Configuration] = []
    for configuration in (c for c in scenario.configurations if c.mesh == mesh):
        bases = _list_bases(scenario, configuration, before)
        pairs = ((configuration.name, base) for base in bases)
        if (contrast := next((known[pair] for pair in pairs if pair in known), None)) is not None:
            yield contrast
        before.append(configuration)


def _list_bases(scenario: Scenario, configuration: Configuration, before: Sequence[Configuration]) -> Iterator[str]:
    """Yield what a configuration is compared with, the first choice first: the pair that the scenario names inside its
    mesh, the step before where this one adds to it, the reference."""
    own = {c.name for c in scenario.configurations if c.mesh == configuration.mesh}
    yield from (p.reference for p in scenario.contrasts if p.configuration == configuration.name and p.reference in own)
    if before and configuration.mesh != "none" and set(before[-1].manifests) <= set(configuration.manifests):
        yield before[-1].name
    if scenario.reference is not None:
        yield scenario.reference


def _format_sentence(scenario: Scenario, group: Sequence[Contrast], margin: float) -> str:
    clauses, previous = [], ""
    for contrast in group:
        subject = _name_subject(scenario, contrast, starts=not previous)
        what = "that" if previous and subject.name == _ITS_POLICIES and contrast.reference == previous else ""
        what = what or f"{'that' if previous else 'the P95'} of {_name_base(scenario, contrast.reference)}"
        clauses.append(_format_clause(contrast, subject, what, margin))
        previous = contrast.configuration
    text = "; ".join(clauses)
    return (text[0].upper() + text[1:] if text.startswith(_OWN_WORDS) else text) + "."


def _name_subject(scenario: Scenario, contrast: Contrast, *, starts: bool) -> Subject:
    """Name what the configuration adds to its base. `starts`: whether the sentence starts with it."""
    configuration, base = (scenario.configuration(name) for name in (contrast.configuration, contrast.reference))
    if contrast.alike or not _has_one_load(scenario):
        return Subject(configuration.name)
    title = _name_mesh(configuration.mesh)
    if configuration.mesh == base.mesh and _adds_policies(configuration, base):
        return Subject(f"{title}'s policies" if starts else _ITS_POLICIES, plural=True)
    if configuration.mesh != "none" == base.mesh and _is_plain(configuration) and _is_plain(base):
        return Subject(f"{title}'s sidecars{_name_in_brackets(scenario, configuration)}", plural=True)
    return Subject(configuration.name)


def _name_in_brackets(scenario: Scenario, configuration: Configuration) -> str:
    """Return the configuration's name where another part of the answer needs it: where its mesh has others like it."""
    others = [c for c in scenario.configurations if c.mesh == configuration.mesh and c != configuration]
    is_plain = configuration.name == configuration.mesh or all(_adds_policies(c, configuration) for c in others)
    return "" if is_plain else f" ({configuration.name})"


def _name_mesh(mesh: str) -> str:
    return MESHES[mesh].title if mesh in MESHES else mesh.capitalize()


def _adds_policies(configuration: Configuration, base: Configuration) -> bool:
    """Return whether a configuration is its base with folders of policies; gateways and routes are none."""
    added = set(configuration.manifests) - set(base.manifests)
    if configuration.images != base.images:
        return False
    folders = [folder.rpartition("/")[2].split("-") for folder in added]
    return set(base.manifests) < set(configuration.manifests) and all("policies" in words for words in folders)


def _name_base(scenario: Scenario, name: str) -> str:
    """Return the application's name for its only configuration without a mesh, else the configuration's."""
    alone = [c.name for c in scenario.configurations if c.mesh == "none"]
    is_alone = alone == [name] and _is_plain(scenario.configuration(name)) and _has_one_load(scenario)
    return format_application(scenario) if is_alone else name


def _is_plain(configuration: Configuration) -> bool:
    """Return whether a configuration is the application and its mesh, without objects or builds of its own."""
    return not configuration.manifests and not configuration.images


def _has_one_load(scenario: Scenario) -> bool:
    """Return whether all configurations have the same load, so that they differ in what they are alone."""
    return not any(configuration.load for configuration in scenario.configurations)


def _format_clause(contrast: Contrast, subject: Subject, what: str, margin: float) -> str:
    """Format one contrast. `what` is the P95 that the subject adds to; `that` alone may be left out."""
    if contrast.verdict == "invalid" or contrast.ratio is None or contrast.ratio_low is None:
        reasons = (issue.detail for issue in contrast.issues if issue.code in _WHY_UNKNOWN)
        return f"nothing is known about {subject.name} ({next(reasons, 'there is no interval')})"
    size = f"{format_rough_change(contrast.ratio)}, {format_between(contrast.ratio_low, contrast.ratio_high)}"
    if contrast.alike:
        return _format_alike(contrast, size)
    if contrast.verdict == "inconclusive":
        return _format_undecided(contrast, subject, what, margin, size)
    amount = f"{format_rough_ms(abs(contrast.delta_ms or 0))} ms ({size})"
    end = "" if what == "that" else f" to {what}"
    if contrast.verdict == "equivalent":
        return f"{subject.does('add')} nothing that matters{end} ({size})"
    if contrast.ratio >= 1:
        return f"{subject.does('add')} {amount}{end}"
    is_odd = any(issue.code == IssueCode.BELOW_REFERENCE for issue in contrast.issues)
    doubt = ", which is noise unless another run shows it" if is_odd else ""
    return f"{subject.does('remove')} {amount} from {what}{doubt}"


def _format_undecided(contrast: Contrast, subject: Subject, what: str, margin: float, size: str) -> str:
    """Name what is not known: whether P95 is larger, whether it is smaller, or which of both."""
    low, high = contrast.ratio_low or 0, contrast.ratio_high or 0
    if low < 1 - margin and high > 1 + margin:
        return f"whether {subject.does('raise', 'lower')} {what} is not known ({size})"
    verb = "remove from" if low < 1 - margin else "add to"
    return f"{subject.name} may {verb} {what}, but it is not known whether {subject.pronoun} ({size})"


def _format_alike(contrast: Contrast, size: str) -> str:
    """Format a configuration that is compared with itself: any difference is noise."""
    same = f"{contrast.configuration} is {contrast.reference} under another name"
    if contrast.verdict in ("equivalent", "inconclusive"):
        return f"{same}, and no difference is found ({size})"
    return f"{same}, but a difference is found ({size}): a false alarm"
