"""The page on image metrics lists the metrics there are, in their order, and the version they have."""

import re
from pathlib import Path

from ai.quality.definitions import IMAGE_DEFINITIONS, METRICS_VERSION, RATIO

PAGE = (Path(__file__).parents[2] / "docs" / "image-metrics.md").read_text(encoding="utf-8")


def test_every_metric_is_listed_with_its_unit_and_need() -> None:
    rows = re.findall(r"^\| `(\w+)`( \S+)? \| (.*?) \|", PAGE, re.MULTILINE)
    assert [name for name, _, _ in rows] == list(IMAGE_DEFINITIONS)
    for name, unit, text in rows:
        definition = IMAGE_DEFINITIONS[name]
        assert (unit.strip() or RATIO) == definition.unit
        assert ("*Phase*" in text) == ("phase" in definition.absent)


def test_the_version_is_told() -> None:
    assert f"now {METRICS_VERSION})" in PAGE
