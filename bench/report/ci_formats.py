"""Write results for CI: JUnit's XML, and tables for the summary page of a job."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from xml.etree import ElementTree as ET

from bench.results.store import write_text

Tag = Literal["failure", "error", "skipped"]


@dataclass(frozen=True, slots=True)
class Case:
    """One test case: its name, what came out, and why."""

    name: str
    outcome: str
    reason: str = ""


def write_junit(path: Path, *, suite: str, cases: Sequence[Case], tags: Mapping[str, Tag]) -> None:
    """Write a test case per contrast. `tags`: by outcome; any other outcome passes, with its reason as output."""
    attributes = {"name": suite, "tests": str(len(cases))}
    kinds: tuple[tuple[Tag, str], ...] = (("failure", "failures"), ("error", "errors"), ("skipped", "skipped"))
    for kind, attribute in kinds:
        attributes[attribute] = str(sum(tags.get(case.outcome) == kind for case in cases))
    root = ET.Element("testsuite", attributes)
    for case in cases:
        element = ET.SubElement(root, "testcase", classname=suite, name=case.name)
        if tag := tags.get(case.outcome):
            ET.SubElement(element, tag, message=case.reason, type=case.outcome)
        elif case.reason:
            ET.SubElement(element, "system-out").text = f"{case.outcome}: {case.reason}"
    write_text(path, ET.tostring(root, encoding="unicode", xml_declaration=True) + "\n")


def format_markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Format a table in Markdown, as lines."""
    return ["| " + " | ".join(row) + " |" for row in (header, ("---",) * len(header), *rows)]
