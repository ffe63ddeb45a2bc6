"""Routing rules: what each condition looks at, how rules combine, and properties that hold for any rules at all."""

import time
from datetime import datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.routing.explain import shortcomings
from node.routing.rules import Decision, Facts, decide, judge, rules_version
from node.settings import Conditions, Destination, ObjectKind, Rule, Settings, Urgency
from storage.deliveries import Priority

SUNDAY_NIGHT = datetime(2026, 11, 22, 23, 30)
RESULTS = (ObjectKind.QUALITY_REPORT, ObjectKind.SEGMENTATION, ObjectKind.LESION_REPORT)
ORIGINAL = (ObjectKind.ORIGINAL,)
SEEN: dict[str, tuple[str, ...] | None] = {
    "source_ae_title": ("MR_SKYRA",),
    "modality": ("MR", "SR"),
    "body_part": ("PROSTATE",),
    "station_name": ("AWP45",),
    "manufacturer": ("SIEMENS",),
    "study_description": ("MR Prostata ohne/mit KM",),
    "series_description": ("t2_tse_tra",),
    "role": ("t2w-axial", "adc"),
    "verdict": ("limited",),
    "detection_state": ("succeeded",),
    "candidate_above_operating_point": ("yes",),
    "requested_priority": ("",),
}
UNJUDGED = SEEN | {"verdict": None, "detection_state": None, "candidate_above_operating_point": None, "role": None}


def facts(priority: Priority | None = None, at: datetime = SUNDAY_NIGHT, **seen: tuple[str, ...] | None) -> Facts:
    return Facts(SEEN | seen, at, priority)


def unjudged(**seen: tuple[str, ...] | None) -> Facts:
    return Facts(UNJUDGED | seen, SUNDAY_NIGHT)


def destination(name: str, receives: tuple[ObjectKind, ...] = RESULTS) -> Destination:
    return Destination(name=name, ae_title=name.upper(), host="10.0.0.1", port=104, receives=receives)


def settings(*rules: dict[str, Any], destinations: tuple[Destination, ...] | None = None) -> Settings:
    names = destinations or (destination("pacs"), destination("archive", ORIGINAL), destination("research", ()))
    entries = [Rule.model_validate({"name": f"r{n}", "destinations": ["pacs"]} | rule) for n, rule in enumerate(rules)]
    return Settings(destinations=names, rules=tuple(entries))


def sent(decision: Decision) -> set[tuple[str, str]]:
    return {(send.kind.value, send.destination) for send in decision.sends}


@pytest.mark.parametrize(
    ("condition", "holds"),
    [
        ({"source_ae_title": "mr_*"}, True),
        ({"source_ae_title": ["CT*", "MR_SKYR?"]}, True),
        ({"source_ae_title": "MR"}, False),
        ({"modality": "SR"}, True),
        ({"modality": ["CT", "PT"]}, False),
        ({"body_part": "prostate"}, True),
        ({"study_description": "*prostat*"}, True),
        ({"study_description": "*(*"}, False),
        ({"role": "t2w-*"}, True),
        ({"verdict": ["diagnostic", "limited"]}, True),
        ({"verdict": "non-diagnostic"}, False),
        ({"detection_state": "succeeded"}, True),
        ({"candidate_above_operating_point": True}, True),
        ({"candidate_above_operating_point": False}, False),
        ({"requested_priority": "stat"}, False),
        ({"time_of_day": "18:00-07:00"}, True),
        ({"time_of_day": "07:00-18:00"}, False),
        ({"time_of_day": ["00:00-06:00", "23:30-23:31"]}, True),
        ({"time_of_day": "22:00-23:30"}, False),
        ({"weekday": "sun"}, True),
        ({"weekday": ["mon", "tue"]}, False),
        ({"modality": "MR", "verdict": "limited"}, True),
        ({"modality": "MR", "verdict": "diagnostic"}, False),
        ({}, True),
    ],
)
def test_each_condition(condition: dict[str, Any], holds: bool) -> None:
    rule = Rule.model_validate({"name": "r", "destinations": ["pacs"], "when": condition})
    assert judge(rule, facts()).holds is holds
    if condition:
        against = Rule.model_validate({"name": "r", "destinations": ["pacs"], "unless": condition})
        any_met = any(c.met for c in judge(against, facts()).unless)
        assert judge(against, facts()).holds is not any_met


def test_the_vocabulary_is_what_the_facts_have() -> None:
    """Every condition of the settings can be looked at, and there is a test case for each above."""
    assert set(Conditions.model_fields) == {*SEEN, "time_of_day", "weekday"}


def test_a_judged_rule_shows_what_it_saw() -> None:
    rule = Rule.model_validate(
        {"name": "r", "destinations": [], "when": {"modality": ["CT", "MR"]}, "unless": {"time_of_day": "12:00-13:00"}}
    )
    judged = judge(rule, facts())
    (modality,), (window,) = judged.when, judged.unless
    assert (modality.expected, modality.seen, modality.met) == (("CT", "MR"), ("MR", "SR"), True)
    assert (window.expected, window.seen, window.met) == (("12:00-13:00",), ("23:30",), False)


def test_without_rules_destinations_get_what_they_receive() -> None:
    decision = decide(settings(), facts(), (*RESULTS, *ORIGINAL))
    assert sent(decision) == {(kind.value, "pacs") for kind in RESULTS} | {("original", "archive")}
    assert all(send.rules == () and send.priority is Priority.ROUTINE for send in decision.sends)


def test_every_rule_that_holds_adds_its_destinations() -> None:
    decision = decide(
        settings(
            {"objects": ["quality-report"]},
            {"objects": ["quality-report"], "destinations": ["research"], "priority": "high"},
            {"objects": ["quality-report"], "destinations": ["research"], "priority": "low"},
            {"objects": ["quality-report"], "destinations": ["archive"], "when": {"modality": "CT"}},
        ),
        facts(),
        RESULTS,
    )
    by_destination = {send.destination: send for send in decision.sends if send.kind is ObjectKind.QUALITY_REPORT}
    assert by_destination.keys() == {"pacs", "research"}
    assert (by_destination["research"].priority, by_destination["research"].rules) == (Priority.HIGH, ("r1", "r2"))
    others = {pair for pair in sent(decision) if pair[0] != "quality-report"}
    assert others == {("segmentation", "pacs"), ("lesion-report", "pacs")}, "no rule speaks of them: as received"


def test_the_last_rule_ends_the_search() -> None:
    chosen = {"objects": ["original"], "destinations": ["research"], "last": True}
    decision = decide(settings(chosen, {"objects": ["original"], "destinations": ["pacs"]}), facts(), ORIGINAL)
    assert sent(decision) == {("original", "research")}
    assert [judged.reached for judged in decision.rules] == [True, False]
    passed = decide(settings(chosen | {"when": {"modality": "CT"}}, {"objects": ["original"]}), facts(), ORIGINAL)
    assert sent(passed) == {("original", "pacs")}


def test_nothing_is_dropped_but_on_purpose() -> None:
    on_purpose = decide(settings({"destinations": [], "objects": ["lesion-report"]}), facts(), RESULTS)
    assert on_purpose.nowhere == (ObjectKind.LESION_REPORT,)
    assert on_purpose.holding == ("r0",)
    unwanted = decide(settings(destinations=(destination("research", ()),)), facts(), RESULTS)
    assert unwanted.nowhere == RESULTS


def test_a_rule_without_objects_sends_what_its_destinations_receive() -> None:
    decision = decide(settings({"destinations": ["pacs", "archive"]}), facts(), (*RESULTS, *ORIGINAL))
    assert sent(decision) == {(kind.value, "pacs") for kind in RESULTS} | {("original", "archive")}
    assert all(send.rules == ("r0",) for send in decision.sends)


def test_urgency_is_the_rule_s_else_the_study_s() -> None:
    asked_stat = facts(Priority.STAT)
    (send,) = decide(settings({"objects": ["original"]}), asked_stat, ORIGINAL).sends
    assert send.priority is Priority.STAT
    (send,) = decide(settings({"objects": ["original"], "priority": "low"}), asked_stat, ORIGINAL).sends
    assert send.priority is Priority.LOW
    (send,) = decide(settings(), asked_stat, ORIGINAL).sends
    assert (send.destination, send.priority) == ("archive", Priority.STAT)


def test_what_is_not_known_yet_waits() -> None:
    good = {"objects": ["original"], "when": {"verdict": ["diagnostic", "limited"]}}
    waiting = decide(settings(good), unjudged(), ORIGINAL)
    assert (sent(waiting), waiting.waits_for, waiting.nowhere) == (set(), ("r0",), ())
    assert sent(decide(settings(good), facts(), ORIGINAL)) == {("original", "pacs")}
    refused = decide(settings(good), facts(verdict=("non-diagnostic",)), ORIGINAL)
    assert sent(refused) == {("original", "archive")}, "the rule does not hold: as received"
    elsewhere = decide(settings(good | {"when": {"modality": "CT", "verdict": "limited"}}), unjudged(), ORIGINAL)
    assert (sent(elsewhere), elsewhere.waits_for) == ({("original", "archive")}, ()), "it cannot hold any more"


def test_a_rule_may_wait_beside_one_that_need_not() -> None:
    decision = decide(
        settings(
            {"objects": ["original"]},
            {"objects": ["original"], "destinations": ["research"], "hold_until_verdict": True},
        ),
        unjudged(),
        ORIGINAL,
    )
    assert (sent(decision), decision.waits_for) == ({("original", "pacs")}, ("r1",))
    later = decide(settings({"objects": ["original"], "hold_until_verdict": True}), facts(), ORIGINAL)
    assert (sent(later), later.waits_for) == ({("original", "pacs")}, ())


def test_behind_a_last_rule_that_waits_everything_waits() -> None:
    decision = decide(
        settings(
            {"destinations": [], "objects": ["lesion-report"], "when": {"verdict": "limited"}, "last": True},
            {"objects": ["original"]},
        ),
        unjudged(),
        ORIGINAL,
    )
    assert (sent(decision), decision.waits_for) == (set(), ("r0",))


def test_the_version_follows_what_routing_depends_on() -> None:
    first = settings({"when": {"modality": "MR"}})
    assert rules_version(first) == rules_version(settings({"when": {"modality": ["MR"]}}))
    assert rules_version(first) != rules_version(settings({"when": {"modality": "CT"}}))
    assert rules_version(settings()) != rules_version(settings(destinations=(destination("pacs", ()),)))


def test_globs_take_no_time_whatever_they_meet() -> None:
    rule = Rule.model_validate({"name": "r", "destinations": [], "when": {"study_description": "*a" * 31 + "b"}})
    begun = time.perf_counter()
    assert judge(rule, facts(study_description=("a" * 10_000,))).holds is False
    assert time.perf_counter() - begun < 10


patterns = st.lists(st.text("AB*?[]-!^ ", max_size=8), min_size=1, max_size=3)
conditions = st.fixed_dictionaries(
    {},
    optional={
        "modality": patterns,
        "study_description": patterns,
        "role": patterns,
        "verdict": st.lists(st.sampled_from(["diagnostic", "limited", "non-diagnostic"]), min_size=1, max_size=2),
        "candidate_above_operating_point": st.booleans(),
        "weekday": st.lists(st.sampled_from(["sat", "sun"]), min_size=1, max_size=2),
    },
)
rule_lists = st.lists(
    st.fixed_dictionaries(
        {
            "when": conditions,
            "unless": conditions,
            "destinations": st.lists(st.sampled_from(["pacs", "archive", "research"]), max_size=2, unique=True),
        },
        optional={
            "objects": st.lists(st.sampled_from(list(ObjectKind)), max_size=3, unique=True),
            "priority": st.sampled_from(list(Urgency)),
            "hold_until_verdict": st.booleans(),
            "last": st.booleans(),
        },
    ),
    max_size=5,
)
worlds = st.fixed_dictionaries(
    {
        "modality": st.tuples(st.text("AB", max_size=3)),
        "study_description": st.tuples(st.text("AB -", max_size=8)),
        "role": st.tuples(st.sampled_from(["A", "t2w-axial"])),
        "verdict": st.tuples(st.sampled_from(["diagnostic", "limited", "non-diagnostic"])),
        "candidate_above_operating_point": st.tuples(st.sampled_from(["yes", "no"])),
    }
)
kinds = st.lists(st.sampled_from(list(ObjectKind)), min_size=1, max_size=4, unique=True)


@given(rules=rule_lists, world=worlds, asked=kinds)
def test_once_all_is_known_every_kind_is_sent_or_said_to_go_nowhere(
    rules: list[dict[str, Any]], world: dict[str, tuple[str, ...]], asked: list[ObjectKind]
) -> None:
    decision = decide(settings(*rules), facts(**world), asked)
    assert decision.waits_for == ()
    assert {send.kind for send in decision.sends} | set(decision.nowhere) == set(asked)
    assert len({(send.kind, send.destination) for send in decision.sends}) == len(decision.sends)
    for send in decision.sends:
        assert set(send.rules) <= set(decision.holding)


@given(rules=rule_lists, world=worlds, asked=kinds)
def test_what_is_sent_early_is_what_would_be_sent_late(
    rules: list[dict[str, Any]], world: dict[str, tuple[str, ...]], asked: list[ObjectKind]
) -> None:
    """Deciding with less knowledge never sends anything that full knowledge would not have sent."""
    configured = settings(*rules)
    early_world = dict(world) | {"verdict": None, "candidate_above_operating_point": None, "role": None}
    early = decide(configured, Facts(UNJUDGED | early_world, SUNDAY_NIGHT), asked)
    late = decide(configured, facts(**world), asked)
    assert sent(early) <= sent(late)
    if not early.waits_for:
        assert sent(early) == sent(late)


def advice_on(*rules: dict[str, Any]) -> str:
    return "\n".join(shortcomings(settings(*rules)))


def test_it_is_said_what_a_rule_takes_away_from_who_receives_it() -> None:
    repeat = {"when": {"verdict": ("non-diagnostic",)}, "destinations": ["research"], "objects": ["quality-report"]}
    assert "rule r0 takes quality-report away from pacs" in advice_on(repeat)
    assert "away" not in advice_on(repeat | {"destinations": ["research", "pacs"]})
    assert "away" not in advice_on(repeat, {"objects": ["quality-report"]}), "another rule always does"
    behind = advice_on(repeat | {"last": True}, {"objects": ["quality-report"]})
    assert "r0 takes quality-report away from pacs" in behind, "which is not reached"
    assert "away" not in advice_on(repeat | {"destinations": []}), "on purpose, and said otherwise"


def test_it_is_said_that_a_rule_adds_nothing_to_receives() -> None:
    good = {"when": {"verdict": ("diagnostic",)}, "destinations": ["archive"], "objects": ["original"]}
    assert "rule r0 is pointless: original goes to archive by receives" in advice_on(good)
    for difference in ({"priority": "stat"}, {"last": True}, {"hold_until_verdict": True}, {"destinations": ["pacs"]}):
        assert "pointless" not in advice_on(good | difference), difference
    assert "pointless" not in advice_on(good, {"when": {"modality": ("MR",)}, "objects": ["original"]}), "needed beside"
    assert "r0 sends nothing" in advice_on({"destinations": ["research"]})


@given(rules=rule_lists, world=worlds, asked=kinds)
def test_nothing_is_withheld_or_useless_without_advice(
    rules: list[dict[str, Any]], world: dict[str, tuple[str, ...]], asked: list[ObjectKind]
) -> None:
    configured = settings(*rules)
    advice = list(shortcomings(configured))
    got = sent(decide(configured, facts(**world), asked))
    received = {(kind.value, name) for kind in asked for name in configured.receivers_of(kind)}
    if not any("names no destination" in one for one in advice):
        for kind, name in received - got:
            assert any(kind in one and f"away from {name}" in one for one in advice)
    for rule in configured.rules:
        if any(one.startswith(f"rule {rule.name} is pointless") for one in advice):
            without = configured.model_copy(update={"rules": tuple(r for r in configured.rules if r is not rule)})
            assert sent(decide(without, facts(**world), asked)) == got


@given(rules=rule_lists)
def test_advice_is_given_on_any_rules(rules: list[dict[str, Any]]) -> None:
    assert all(isinstance(advice, str) for advice in shortcomings(settings(*rules)))
