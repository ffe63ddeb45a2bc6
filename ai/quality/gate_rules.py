"""The gate's rule table: read from ``data/gate_rules.toml`` and checked to be complete and without contradiction.

The file states per row its source. It is data so that a radiologist can read the policy without reading Python; it is
checked when it is first used so that a row that was forgotten can never be met with a patient's study.
"""

import tomllib
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from importlib.resources import files
from itertools import product
from typing import Any, Final

from ai.quality.types import Verdict

RULE_FILE: Final = "data/gate_rules.toml"
RISING_DEFECT: Final = (Verdict.DIAGNOSTIC, Verdict.LIMITED, Verdict.NON_DIAGNOSTIC)


class GateRuleError(ValueError):
    """The rule table cannot be used; the message names the rule and what is wrong with it."""


class Column(StrEnum):
    """What a study may have of the axial T2-weighted, or of the diffusion, images: a verdict, or none of them."""

    DIAGNOSTIC = "diagnostic"
    LIMITED = "limited"
    NON_DIAGNOSTIC = "non-diagnostic"
    NOT_ASSESSED = "not-assessed"
    ABSENT = "absent"


@dataclass(frozen=True)
class GateRule:
    """One row: the combinations it covers, what follows from them, and where that comes from."""

    name: str
    t2w: tuple[Column, ...]
    diffusion: tuple[Column, ...]
    verdict: Verdict
    opens: bool
    statement: str
    source: str


@dataclass(frozen=True)
class Bound:
    """A rule that lowers a verdict to ``at_best``; one of a study also shuts the gate if ``shuts``."""

    at_best: Verdict
    statement: str
    source: str
    shuts: bool = False

    def apply(self, verdict: Verdict) -> Verdict:
        """The verdict, no better than ``at_best``; not-assessed stays what it is."""
        if verdict is Verdict.NOT_ASSESSED:
            return verdict
        return max(verdict, self.at_best, key=RISING_DEFECT.index)


@dataclass(frozen=True)
class GateTable:
    """The whole policy. ``sources`` holds the citation behind each rule's ``source``."""

    version: int
    rules: tuple[GateRule, ...]
    novelty: Bound
    part_not_assessed: Bound
    sources: Mapping[str, str]

    def rule(self, t2w: Column, diffusion: Column) -> GateRule:
        """The one rule for this combination."""
        return next(rule for rule in self.rules if t2w in rule.t2w and diffusion in rule.diffusion)


@cache
def gate_table() -> GateTable:
    """The table this version ships. Raises GateRuleError where it is not complete."""
    return parse_gate_table(files("ai.quality").joinpath(RULE_FILE).read_text(encoding="utf-8"))


def parse_gate_table(text: str) -> GateTable:
    """Read a table from TOML and check it.

    Raises:
        GateRuleError: a key is missing or unknown, a source is not cited, a combination of T2W and diffusion is covered
            by no rule or by several.
    """
    try:
        document = tomllib.loads(text)
        sources = dict(document["sources"])
        table = GateTable(
            version=int(document["version"]),
            rules=tuple(_rule(entry) for entry in document["rules"]),
            novelty=_bound("series.novelty", document["series"]["novelty"]),
            part_not_assessed=_bound("study.part-not-assessed", document["study"]["part-not-assessed"]),
            sources=sources,
        )
    except tomllib.TOMLDecodeError as error:
        raise GateRuleError(f"the gate's rule table is no TOML: {error}") from error
    except KeyError as error:
        raise GateRuleError(f"the gate's rule table lacks {error}") from error
    _check_sources(table)
    _check_cover(table)
    return table


def _rule(entry: Mapping[str, Any]) -> GateRule:
    name = str(entry["name"])
    try:
        return GateRule(
            name=name,
            t2w=tuple(Column(word) for word in entry["t2w"]),
            diffusion=tuple(Column(word) for word in entry["diffusion"]),
            verdict=Verdict(entry["verdict"]),
            opens=_opens(entry["gate"]),
            statement=str(entry["statement"]),
            source=str(entry["source"]),
        )
    except ValueError as error:
        raise GateRuleError(f"gate rule {name}: {error}") from error


def _bound(name: str, entry: Mapping[str, Any]) -> Bound:
    try:
        at_best = Verdict(entry["at_best"])
        shuts = not _opens(entry.get("gate", "open"))
    except ValueError as error:
        raise GateRuleError(f"gate rule {name}: {error}") from error
    if at_best not in RISING_DEFECT:
        raise GateRuleError(f"gate rule {name}: at_best cannot be {at_best}")
    return Bound(at_best, str(entry["statement"]), str(entry["source"]), shuts)


def _opens(word: str) -> bool:
    if word not in ("open", "shut"):
        raise ValueError(f"gate is open or shut, not {word!r}")
    return word == "open"


def _check_sources(table: GateTable) -> None:
    cited = [("series.novelty", table.novelty.source), ("study.part-not-assessed", table.part_not_assessed.source)]
    cited += [(rule.name, rule.source) for rule in table.rules]
    for name, source in cited:
        if source not in table.sources:
            raise GateRuleError(f"gate rule {name}: its source {source!r} is not under [sources]")


def _check_cover(table: GateTable) -> None:
    names = Counter(rule.name for rule in table.rules)
    if twice := [name for name, count in names.items() if count > 1]:
        raise GateRuleError(f"gate rules: the name {twice[0]} is taken twice")
    for t2w, diffusion in product(Column, Column):
        met = [rule.name for rule in table.rules if t2w in rule.t2w and diffusion in rule.diffusion]
        if len(met) != 1:
            by = "no rule" if not met else " and ".join(met)
            raise GateRuleError(f"gate rules: T2W {t2w} with diffusion {diffusion} is covered by {by}")
