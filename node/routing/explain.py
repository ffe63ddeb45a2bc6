"""What ``pacsgate rules test`` and ``rules check`` print: why a study's objects go where they go."""

from collections.abc import Collection, Iterator, Sequence
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from node.routing.endpoints import endpoint_of
from node.routing.facts import facts_of_study
from node.routing.rules import Decision, JudgedCondition, JudgedRule, decide, rules_version, sends_to, spoken_kinds
from node.settings import Conditions, ObjectKind, Rule, Settings
from storage.deliveries import last_results
from storage.models import Instance
from storage.originals import count_echoes

RESULTS = tuple(kind for kind in ObjectKind if kind is not ObjectKind.ORIGINAL)


def explain(session: Session, settings: Settings, study_instance_uid: str) -> dict[str, Any]:
    """How these settings route the study as it is known now. Nothing is changed. Raises UnknownStudy."""
    facts = facts_of_study(session, study_instance_uid)
    made: dict[str, int] = {}
    for result in last_results(session, study_instance_uid):
        made[result.kind] = made.get(result.kind, 0) + 1
    kinds = [kind for kind in RESULTS if kind in made] or list(RESULTS)
    whole = decide(settings, facts.whole, kinds)
    return {
        "study_instance_uid": study_instance_uid,
        "revision": facts.revision,
        "rules_version": rules_version(settings),
        "results": _decision(whole, {kind: made.get(kind, 0) for kind in kinds}),
        "originals": [
            {
                "series_instance_uid": item.series_instance_uid,
                "modality": (item.facts.values["modality"] or ("",))[0],
                "series_description": (item.facts.values["series_description"] or ("",))[0],
                **_originals(session, settings, item.series_id, decide(settings, item.facts, (ObjectKind.ORIGINAL,))),
            }
            for item in facts.series
        ],
    }


def shortcomings(settings: Settings) -> Iterator[str]:
    """What is allowed and probably not meant."""
    ended_by: str | None = None
    for rule in settings.rules:
        if ended_by is not None:
            yield f"rule {rule.name} is never reached: {ended_by} always holds and is the last"
        elif rule.last and _asks_nothing(rule):
            ended_by = rule.name
        if not rule.destinations:
            yield f"rule {rule.name} names no destination: what it speaks of is sent nowhere"
        if rule.hold_until_verdict and rule.objects is not None and ObjectKind.ORIGINAL not in rule.objects:
            yield f"rule {rule.name}: hold_until_verdict concerns original images only; results come after the verdict"
        yield from _taken_away(settings, rule)
        yield from _pointless(settings, rule)
    used = {name for rule in settings.rules for name in rule.destinations}
    for destination in settings.destinations:
        if destination.name not in used and not destination.receives:
            yield f"destination {destination.name} receives nothing and no rule names it"


def _taken_away(settings: Settings, rule: Rule) -> Iterator[str]:
    """Where a rule that holds speaks of a kind, ``receives`` does not count for it. (No destination: on purpose.)"""
    sends = set(sends_to(settings, rule, tuple(ObjectKind)))
    kept = sends | _always_sent(settings)
    for destination in settings.destinations:
        kinds = {kind for kind, _ in sends if kind in destination.receives and (kind, destination.name) not in kept}
        if kinds:
            yield (
                f"rule {rule.name} takes {_listed(kinds)} away from {destination.name}, which receives it: where the "
                f"rule holds, only rules decide; name {destination.name} in it as well if that is not meant"
            )


def _always_sent(settings: Settings) -> set[tuple[ObjectKind, str]]:
    """What is sent to whom by rules that hold whatever comes, and that no earlier one keeps from being reached."""
    sent: set[tuple[ObjectKind, str]] = set()
    for rule in settings.rules:
        if _asks_nothing(rule):
            sent.update(sends_to(settings, rule, tuple(ObjectKind)))
        if rule.last:
            break
    return sent


def _pointless(settings: Settings, rule: Rule) -> Iterator[str]:
    """A rule that adds nothing to ``receives``: what it speaks of goes there also where it does not hold."""
    every = tuple(ObjectKind)
    if not rule.destinations or rule.last or rule.priority is not None or rule.hold_until_verdict:
        return
    sends = set(sends_to(settings, rule, every))
    kinds = {kind for kind, _ in sends}
    others = {kind for other in settings.rules if other is not rule for kind in spoken_kinds(settings, other, every)}
    if not sends:
        yield f"rule {rule.name} sends nothing: it names no objects, and its destinations receive none"
    elif not kinds & others and sends == {(kind, name) for kind in kinds for name in settings.receivers_of(kind)}:
        names = ", ".join(sorted({name for _, name in sends}))
        yield f"rule {rule.name} is pointless: {_listed(kinds)} goes to {names} by receives, whether it holds or not"


def _listed(kinds: Collection[ObjectKind]) -> str:
    return ", ".join(sorted(kinds))


def _asks_nothing(rule: Rule) -> bool:
    return rule.when == Conditions() and rule.unless == Conditions()


def _decision(decision: Decision, objects: dict[ObjectKind, int]) -> dict[str, Any]:
    return {
        "rules": [_rule(judged) for judged in decision.rules],
        "sends": [
            {
                "kind": send.kind.value,
                "objects": objects[send.kind],
                "destination": send.destination,
                "priority": send.priority.name.lower(),
                "because": ", ".join(f"rule {name}" for name in send.rules) or "receives",
            }
            for send in decision.sends
        ],
        "waits_for": list(decision.waits_for),
        "nowhere": [kind.value for kind in decision.nowhere],
    }


def _originals(session: Session, settings: Settings, series_id: int, decision: Decision) -> dict[str, Any]:
    count = session.scalar(select(func.count(Instance.id)).where(Instance.series_id == series_id)) or 0
    document = _decision(decision, {ObjectKind.ORIGINAL: count})
    for send in document["sends"]:
        destination = settings.destination(send["destination"])
        echoes = count_echoes(session, series_id, endpoint_of(destination)) if destination else 0
        send["objects"] = count - echoes
        send["not_sent_back"] = echoes
    return document


def _rule(judged: JudgedRule) -> dict[str, Any]:
    words = {True: "holds", False: "does not hold", None: "not known yet"}
    return {
        "name": judged.rule.name,
        "holds": judged.holds,
        "reached": judged.reached,
        "outcome": words[judged.holds] if judged.reached else "not reached",
        "when": _conditions(judged.when),
        "unless": _conditions(judged.unless),
    }


def _conditions(conditions: Sequence[JudgedCondition]) -> list[dict[str, Any]]:
    return [
        {
            "condition": condition.name,
            "expected": list(condition.expected),
            "seen": None if condition.seen is None else list(condition.seen),
            "met": condition.met,
        }
        for condition in conditions
    ]
