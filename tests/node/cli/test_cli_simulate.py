"""``pacsgate simulate``: one option for what is wrong in the images and for what is wrong in how they arrive."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from ai.simulation import study
from ai.simulation.protocol import SeriesKind

simulate_study = study.simulate_study


@pytest.fixture
def planned(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str | None, tuple[SeriesKind, ...]]]:
    """What the command asks to be simulated: artefact and kinds of series. It gets a tiny axial T2 instead."""
    asked = []

    def tiny(seed, artifact, severity, *, with_lesion, protocols):
        asked.append((artifact, tuple(protocol.kind for protocol in protocols)))
        axial = next(one for one in protocols if one.kind == SeriesKind.T2_AXIAL)
        small = replace(axial, slices=12, slice_thickness_mm=6.0, matrix=64, frequency_samples=64, phase_lines=48)
        return simulate_study(seed, with_lesion=with_lesion, protocols=[small], spacing_mm=(2.0, 2.0, 2.0))

    monkeypatch.setattr(study, "simulate_study", tiny)
    return asked


def test_a_fault_leaves_the_images_clean_and_the_series_wrong(pacsgate, tmp_path: Path, planned) -> None:
    outcome = pacsgate(
        "simulate", "--out", tmp_path, "--artifact", "missing-slices", "--severity", 2, "--truth", "--json"
    )
    assert outcome.exit_code == 0
    assert planned[0][0] is None
    (written,) = json.loads(outcome.stdout)
    assert (written["artifact"], written["instances"]) == ("missing-slices", 10)
    truth = json.loads((tmp_path / "truth.json").read_text())
    assert (truth["artifact"], truth["severity"]) == ("missing-slices", 2)


@pytest.mark.parametrize(
    ("arguments", "dynamic"),
    [([], False), (["--artifact", "zipper"], False), (["--dynamic"], True), (["--artifact", "frame-motion"], True)],
)
def test_a_dynamic_series_is_made_where_it_is_asked_for(pacsgate, tmp_path: Path, planned, arguments, dynamic) -> None:
    assert pacsgate("simulate", "--out", tmp_path, *arguments).exit_code == 0
    ((artifact, kinds),) = planned
    assert artifact == (arguments[1] if len(arguments) > 1 else None)
    assert (SeriesKind.DCE in kinds) is dynamic


def test_a_wrong_name_lists_the_right_ones_by_kind(pacsgate, tmp_path: Path) -> None:
    outcome = pacsgate("simulate", "--out", tmp_path, "--artifact", "rust")
    assert outcome.exit_code == 2
    for listed in ("t2-blur, wrap, zipper (in the images)", "low-temporal-resolution (in the dynamic series)"):
        assert listed in outcome.stderr
    assert "truncated-view, wrong-b-values (in how they arrive)" in outcome.stderr
