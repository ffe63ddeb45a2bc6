"""Routing rules: whether each holds, and which object goes where. A closed vocabulary, no code, no regular expressions.

All rules are looked at in their order, and every one that holds adds its destinations; ``last`` ends the search. Where
no rule that holds speaks of a kind of object, the destinations whose ``receives`` names it get it: an object is sent
nowhere only where somebody said so.

A condition on what is not known yet (the verdict, while a study is being received) neither holds nor fails: the rule
waits, and with it what it speaks of.
"""

import hashlib
import json
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, time
from fnmatch import fnmatchcase

from node.settings import Conditions, Destination, ObjectKind, Rule, Settings
from storage.deliveries import Priority

WEEKDAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
VERDICT = "verdict"


@dataclass(frozen=True)
class Facts:
    """What the conditions look at: the values of each, None where they are not known yet. ``at`` is local time."""

    values: Mapping[str, tuple[str, ...] | None]
    at: datetime
    priority: Priority | None = None
    """What the study itself asks for, None where it does not."""


@dataclass(frozen=True)
class JudgedCondition:
    """A condition and what it saw. ``met`` is None where that is not known yet."""

    name: str
    expected: tuple[str, ...]
    seen: tuple[str, ...] | None
    met: bool | None


@dataclass(frozen=True)
class JudgedRule:
    """A rule and whether it holds; None: not known yet."""

    rule: Rule
    holds: bool | None
    when: tuple[JudgedCondition, ...]
    unless: tuple[JudgedCondition, ...]
    reached: bool = True
    """False where an earlier rule with ``last`` ended the search."""


@dataclass(frozen=True)
class Send:
    """A kind of object goes to a destination, because of ``rules`` (none: because of its ``receives``)."""

    kind: ObjectKind
    destination: str
    priority: Priority
    rules: tuple[str, ...]


@dataclass(frozen=True)
class Decision:
    """What the rules say of some kinds of objects."""

    sends: tuple[Send, ...]
    rules: tuple[JudgedRule, ...]
    waits_for: tuple[str, ...]
    """Rules that cannot be decided yet; what they speak of waits."""
    nowhere: tuple[ObjectKind, ...]
    """Kinds that go nowhere, and wait for nothing."""

    @property
    def holding(self) -> tuple[str, ...]:
        """Names of the rules that hold and were reached."""
        return tuple(judged.rule.name for judged in self.rules if judged.holds and judged.reached)


def judge(rule: Rule, facts: Facts) -> JudgedRule:
    """Look at every condition of a rule."""
    when = tuple(_conditions(rule.when, facts))
    unless = tuple(_conditions(rule.unless, facts))
    met = [condition.met for condition in when]
    against = [condition.met for condition in unless]
    holds: bool | None
    if False in met or True in against:
        holds = False
    elif None in met or None in against:
        holds = None
    else:
        holds = True
    return JudgedRule(rule, holds, when, unless)


def decide(settings: Settings, facts: Facts, kinds: Collection[ObjectKind]) -> Decision:
    """Where objects of these kinds go."""
    found: dict[tuple[ObjectKind, str], Send] = {}
    judged_rules: list[JudgedRule] = []
    waits_for: list[str] = []
    spoken: set[ObjectKind] = set()
    ended = False
    for rule in settings.rules:
        judged = judge(rule, facts)
        holds = _held_back(judged, facts, kinds)
        judged_rules.append(JudgedRule(rule, holds, judged.when, judged.unless, reached=not ended))
        if ended or holds is False:
            continue
        speaks_of = spoken_kinds(settings, rule, kinds)
        spoken |= speaks_of
        if holds is None:
            if speaks_of or rule.last:
                waits_for.append(rule.name)
            if rule.last:  # whether the rules after it count is not known either: all that is left waits
                spoken |= set(kinds)
        else:
            for send in _sends(settings, rule, facts, speaks_of):
                _merge(found, send)
        ended = rule.last
    for kind in kinds:
        if kind not in spoken:
            for name in settings.receivers_of(kind):
                _merge(found, Send(kind, name, _asked(facts), ()))
    sent = {kind for kind, _ in found}
    nowhere = tuple(kind for kind in kinds if kind not in sent) if not waits_for else ()
    return Decision(tuple(found.values()), tuple(judged_rules), tuple(waits_for), nowhere)


def spoken_kinds(settings: Settings, rule: Rule, kinds: Collection[ObjectKind]) -> set[ObjectKind]:
    """The kinds a rule speaks of: those it names, else those its destinations receive, else (no destination) all."""
    if rule.objects is not None:
        named = set(rule.objects)
    elif rule.destinations:
        named = {kind for destination in _destinations(settings, rule) for kind in destination.receives}
    else:
        named = set(kinds)
    return named & set(kinds)


def sends_to(settings: Settings, rule: Rule, kinds: Collection[ObjectKind]) -> Iterator[tuple[ObjectKind, str]]:
    """Which of these kinds a rule sends to which destination, where it holds."""
    for destination in _destinations(settings, rule):
        for kind in destination.receives if rule.objects is None else rule.objects:
            if kind in kinds:
                yield kind, destination.name


def rules_version(settings: Settings) -> str:
    """A short hash of everything routing depends on: rules, and what each destination receives."""
    document = {
        "rules": [rule.model_dump(mode="json") for rule in settings.rules],
        "receives": {destination.name: destination.receives for destination in settings.destinations},
    }
    return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()[:12]


def _held_back(judged: JudgedRule, facts: Facts, kinds: Collection[ObjectKind]) -> bool | None:
    """``hold_until_verdict``: for original images, holding is not known before the verdict is."""
    early = facts.values[VERDICT] is None and ObjectKind.ORIGINAL in kinds
    return None if judged.holds and judged.rule.hold_until_verdict and early else judged.holds


def _destinations(settings: Settings, rule: Rule) -> Iterator[Destination]:
    for name in rule.destinations:
        destination = settings.destination(name)
        if destination is not None:  # checked when the settings were read
            yield destination


def _sends(settings: Settings, rule: Rule, facts: Facts, kinds: set[ObjectKind]) -> Iterator[Send]:
    priority = _asked(facts) if rule.priority is None else Priority[rule.priority.name]
    for kind, destination in sends_to(settings, rule, kinds):
        yield Send(kind, destination, priority, (rule.name,))


def _asked(facts: Facts) -> Priority:
    """The urgency the study itself asks for, else routine. (STAT is 0: not a matter of truth.)"""
    return Priority.ROUTINE if facts.priority is None else facts.priority


def _merge(found: dict[tuple[ObjectKind, str], Send], new: Send) -> None:
    """Two rules that send the same to the same: once, with the greater urgency."""
    key = (new.kind, new.destination)
    before = found.get(key)
    if before is not None:
        new = Send(new.kind, new.destination, min(before.priority, new.priority), before.rules + new.rules)
    found[key] = new


def _conditions(conditions: Conditions, facts: Facts) -> Iterator[JudgedCondition]:
    for name in type(conditions).model_fields:
        wanted = getattr(conditions, name)
        if wanted is None:
            continue
        if name == "time_of_day":
            seen: tuple[str, ...] | None = (f"{facts.at:%H:%M}",)
            expected = tuple(wanted)
            met: bool | None = any(_within(facts.at.time(), window) for window in wanted)
        else:
            expected = ("yes" if wanted else "no",) if isinstance(wanted, bool) else tuple(str(item) for item in wanted)
            seen = (WEEKDAYS[facts.at.weekday()],) if name == "weekday" else facts.values[name]
            met = None if seen is None else any(_matches(value, pattern) for value in seen for pattern in expected)
        yield JudgedCondition(name, expected, seen, met)


def _matches(value: str, pattern: str) -> bool:
    """Glob match without regard to case. `fnmatch` compiles ``*`` so that it never backtracks into an earlier one."""
    return fnmatchcase(value.strip().upper(), pattern.upper())


def _within(moment: time, window: str) -> bool:
    """Whether the local time lies in ``HH:MM-HH:MM``, its end excluded; a window may cross midnight."""
    begin, end = (time.fromisoformat(part) for part in window.split("-"))
    return begin <= moment < end if begin < end else moment >= begin or moment < end
