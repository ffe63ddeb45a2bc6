"""The code book against the standard's dictionary as pydicom has it."""

import pytest
from pydicom.sr._concepts_dict import concepts

from ai.quality import codes
from ai.quality.types import Code

QUALITY_CONTEXT_GROUPS = {6314, 6315, 6316, 6317, 6318, 7011}
ALL = [value for value in vars(codes).values() if isinstance(value, Code)]
DICTIONARY = {
    (value, scheme): (meaning, set(groups))
    for scheme, keywords in concepts.items()
    for entries in keywords.values()
    for value, (meaning, groups) in entries.items()
}


@pytest.mark.parametrize("code", ALL, ids=lambda code: code.value)
def test_every_code_is_in_a_quality_context_group_and_spelled_as_there(code: Code) -> None:
    meaning, groups = DICTIONARY[(code.value, code.scheme)]
    assert code.meaning == meaning
    assert groups & QUALITY_CONTEXT_GROUPS


def test_codes_are_distinct() -> None:
    assert len({(code.scheme, code.value) for code in ALL}) == len(ALL)
