"""Group commit: every caller gets its own outcome, shares the commit with those who wait, and costs them nothing."""

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy.exc import OperationalError

from storage.group_commit import GroupCommit

WAIT_S = 20


class Commits:
    """A commit that notes its batches, and refuses one with a poisoned item in it as a whole."""

    def __init__(self, error: Callable[[], Exception] | None = None) -> None:
        self.batches: list[list[str]] = []
        self.committed: list[str] = []
        self.entered = threading.Event()
        self.proceed = threading.Event()
        self.proceed.set()
        self._error = error
        self._inside = threading.Lock()

    def __call__(self, items: Sequence[str]) -> list[str]:
        assert self._inside.acquire(blocking=False), "two commits at once"
        try:
            self.entered.set()
            assert self.proceed.wait(WAIT_S)
            self.batches.append(list(items))
            if self._error is not None and any("poison" in item for item in items):
                raise self._error()
            self.committed += items
            return [f"outcome of {item}" for item in items]
        finally:
            self._inside.release()


def test_one_caller_commits_alone_and_at_once() -> None:
    commits = Commits()
    commit = GroupCommit(commits)
    assert [commit(item) for item in "ab"] == ["outcome of a", "outcome of b"]
    assert commits.batches == [["a"], ["b"]]


def waiting(commit: GroupCommit[str, str], commits: Commits, items: Sequence[str]) -> list[str | Exception]:
    """The outcomes, or errors, of ``items`` that all wait while another commit is under way."""

    def outcome(item: str) -> str | Exception:
        try:
            return commit(item)
        except Exception as error:  # noqa: BLE001 - it is what is looked at
            return error

    commits.proceed.clear()
    with ThreadPoolExecutor(len(items) + 1) as pool:
        first = pool.submit(outcome, "first")
        assert commits.entered.wait(WAIT_S)
        futures = []
        for number, item in enumerate(items, 1):
            futures.append(pool.submit(outcome, item))
            while len(commit._waiting) < number:
                threading.Event().wait(0.001)
        commits.proceed.set()
        assert first.result(WAIT_S) == "outcome of first"
        return [future.result(WAIT_S) for future in futures]


def test_who_waits_is_taken_along_by_the_next_commit_in_order() -> None:
    commits = Commits()
    items = [f"item {number}" for number in range(10)]
    assert waiting(GroupCommit(commits), commits, items) == [f"outcome of {item}" for item in items]
    assert commits.batches == [["first"], items]


def test_a_commit_takes_no_more_than_its_maximum() -> None:
    commits = Commits()
    items = [f"item {number}" for number in range(10)]
    assert waiting(GroupCommit(commits, maximum_items=4), commits, items) == [f"outcome of {item}" for item in items]
    assert commits.batches == [["first"], items[:4], items[4:8], items[8:]]


@pytest.mark.parametrize(
    "error", [lambda: ValueError("bad"), lambda: OSError("bad"), lambda: OperationalError("INSERT", {}, Exception())]
)
def test_a_poisoned_item_costs_its_neighbours_nothing(error: Callable[[], Exception]) -> None:
    commits = Commits(error)
    outcomes = waiting(GroupCommit(commits), commits, ["a", "poison", "b", "other poison", "c"])
    assert [outcome for outcome in outcomes if isinstance(outcome, str)] == [f"outcome of {item}" for item in "abc"]
    assert [type(outcomes[1]), type(outcomes[3])] == [type(error())] * 2
    assert commits.committed == ["first", "a", "b", "c"]


def test_a_defect_of_the_commit_leaves_nobody_waiting() -> None:
    """An error that no commit should raise: all who were taken along hear of it, and the next commit works."""
    commits = Commits(lambda: TypeError("a defect"))
    commit = GroupCommit(commits)
    outcomes = waiting(commit, commits, ["a", "poison", "b"])
    assert [type(outcome) for outcome in outcomes] == [TypeError] * 3
    assert commit("later") == "outcome of later"


@given(st.lists(st.booleans(), min_size=1, max_size=40), st.integers(1, 8), st.integers(1, 70))
@settings(deadline=None, max_examples=50)
def test_each_item_is_settled_once(poisoned: list[bool], threads: int, maximum_items: int) -> None:
    commits = Commits(lambda: ValueError("bad"))
    commit = GroupCommit(commits, maximum_items)
    items = [f"{'poison' if bad else 'item'} {number}" for number, bad in enumerate(poisoned)]

    def settle(item: str) -> bool:
        try:
            return commit(item) == f"outcome of {item}"
        except ValueError:
            return "poison" in item

    with ThreadPoolExecutor(threads) as pool:
        assert all(pool.map(settle, items, timeout=WAIT_S))
    assert sorted(commits.committed) == sorted(item for item in items if "poison" not in item)
    assert max(map(len, commits.batches)) <= min(maximum_items, threads)
