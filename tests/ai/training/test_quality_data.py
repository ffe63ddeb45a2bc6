"""Files of cases and trainings: made once, none left of a failure, never taken from a training on something else."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from ai.training.quality_cases import CaseSet, join, load_described
from ai.training.quality_data import Job, load_cases, run_jobs
from ai.training.quality_models import training_folder
from ai.training.quality_network import Schedule
from node.cli.recipe_options import STEPS
from tests.ai.training.test_quality_cases import made


def test_files_that_are_there_are_not_made_again(tmp_path: Path) -> None:
    there = tmp_path / "there"
    there.write_bytes(b"")
    assert run_jobs([Job("there", there, made, (["a"],))], 1, lambda _: None) == [there]
    assert there.read_bytes() == b""


def test_a_series_that_cannot_be_used_is_named_and_leaves_no_file(tmp_path: Path) -> None:
    assert Job("some series", tmp_path / "new", join, ([],)).run() == "some series not used: no cases"
    assert list(tmp_path.iterdir()) == []


def test_a_file_holds_what_was_made(tmp_path: Path) -> None:
    path = tmp_path / "below" / "a.npz"
    assert Job("a", path, made, (["a", "b"],)).run() == "a"
    assert load_cases([path]).cases == load_described(path) == made(["a", "b"]).cases


def test_other_cases_labels_schedules_and_seeds_are_trained_anew(tmp_path: Path) -> None:
    cases, schedule = made(["a", "b"]), Schedule()
    relabelled = CaseSet(cases.cases, replace(cases.slices, similarity=cases.slices.similarity + np.float32(0.01)))
    folders = {
        training_folder(tmp_path, *told)
        for told in (
            (cases, schedule, 1),
            (made(["a", "c"]), schedule, 1),
            (relabelled, schedule, 1),
            (cases, replace(schedule, batch=16), 1),
            (cases, schedule, 2),
        )
    }
    assert len(folders) == 5
    assert training_folder(tmp_path, made(["a", "b"]), Schedule(), 1) in folders


def test_the_commands_offer_the_default_schedule() -> None:
    assert Schedule.lasting(STEPS) == Schedule()
