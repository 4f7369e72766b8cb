"""Istio's way of writing a set of strings: `exact`, `prefix*`, `*suffix`, or `*` for any that is there."""

from dataclasses import dataclass
from typing import Any, Literal

PatternKind = Literal["exact", "prefix", "suffix", "present"]


@dataclass(frozen=True, slots=True)
class Pattern:
    """A parsed pattern; `text` is what stands beside the asterisk."""

    kind: PatternKind
    text: str

    def matches(self, value: str, *, ignore_case: bool = False) -> bool:
        """Whether `value` is one of the strings that are meant; `*` stands for any but the empty one."""
        text, value = (self.text.lower(), value.lower()) if ignore_case else (self.text, value)
        match self.kind:
            case "exact":
                return value == text
            case "prefix":
                return value.startswith(text)
            case "suffix":
                return value.endswith(text)
            case "present":
                return value != ""

    def string_match(self, *, after: str = "") -> dict[str, Any]:
        """Envoy's StringMatcher for it; `after` is a fixed text that stands before every value."""
        if self.kind == "present":
            return {"safe_regex": {"regex": ".+"}}
        if self.kind == "suffix" and after:
            return {"safe_regex": {"regex": f"{after}.*{self.text}"}}
        return {self.kind: (after if self.kind != "suffix" else "") + self.text}


def parse_pattern(value: str) -> Pattern:
    """The pattern that `value` spells. Raises ValueError for an asterisk where it has no meaning."""
    if value == "*":
        return Pattern("present", "")
    kind: PatternKind = "suffix" if value.startswith("*") else "prefix" if value.endswith("*") else "exact"
    text = value.removeprefix("*") if kind == "suffix" else value.removesuffix("*") if kind == "prefix" else value
    if "*" in text:
        raise ValueError(f"{value!r}: an asterisk stands at the start or at the end, once")
    return Pattern(kind, text)
