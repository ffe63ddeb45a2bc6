"""The rule table: complete, free of contradiction, and never kinder to worse images."""

import re
from importlib.resources import files
from itertools import pairwise, product

import pytest

from ai.quality.gate_rules import RISING_DEFECT, RULE_FILE, Column, GateRuleError, gate_table, parse_gate_table
from ai.quality.types import Verdict

TEXT = files("ai.quality").joinpath(RULE_FILE).read_text(encoding="utf-8")
USABLE = (Column.DIAGNOSTIC, Column.LIMITED)
RISING = (*USABLE, Column.NON_DIAGNOSTIC)


@pytest.mark.parametrize(("t2w", "diffusion"), list(product(Column, Column)))
def test_the_policy_in_words_holds_for_every_combination(t2w: Column, diffusion: Column) -> None:
    rule = gate_table().rule(t2w, diffusion)
    assert rule.opens is (t2w in USABLE and diffusion in USABLE)
    known = [column for column in (t2w, diffusion) if column in RISING]
    if not known:
        assert rule.verdict is Verdict.NOT_ASSESSED
        return
    worst = Verdict(max(known, key=RISING.index).value)
    unseen = t2w not in RISING or diffusion is Column.NOT_ASSESSED
    assert rule.verdict is (Verdict.LIMITED if unseen and worst is Verdict.DIAGNOSTIC else worst)


def test_worse_images_never_get_a_better_verdict_or_an_open_gate() -> None:
    rule = gate_table().rule
    for t2w, (better, poorer) in product(Column, pairwise(RISING)):
        for first, second in ((rule(t2w, better), rule(t2w, poorer)), (rule(better, t2w), rule(poorer, t2w))):
            assert RISING_DEFECT.index(first.verdict) <= RISING_DEFECT.index(second.verdict)
            assert first.opens >= second.opens


def test_every_source_is_a_citation_that_some_rule_uses() -> None:
    table = gate_table()
    used = {rule.source for rule in table.rules} | {table.novelty.source, table.part_not_assessed.source}
    assert used == set(table.sources)


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        ('t2w = ["limited"]', 't2w = ["diagnostic"]', "covered by both-diagnostic and t2w-limited"),
        ('diffusion = ["absent"]', 'diffusion = ["not-assessed"]', "covered by"),
        ('t2w = ["diagnostic"]', 't2w = ["perfect"]', "gate rule both-diagnostic: 'perfect'"),
        ('gate = "open"', 'gate = "ajar"', "open or shut, not 'ajar'"),
        ('source = "PI-QUAL v2"', 'source = "hearsay"', "'hearsay' is not under [sources]"),
        ('statement = "Axial', '# statement = "Axial', "lacks 'statement'"),
        ('name = "t2w-limited"', 'name = "both-diagnostic"', "taken twice"),
        ('at_best = "limited"', 'at_best = "not-assessed"', "at_best cannot be"),
        ("version = 1", "version = ", "no TOML"),
    ],
)
def test_a_table_with_a_hole_or_a_contradiction_is_refused(old: str, new: str, complaint: str) -> None:
    with pytest.raises(GateRuleError, match=re.escape(complaint)):
        parse_gate_table(TEXT.replace(old, new, 1))
