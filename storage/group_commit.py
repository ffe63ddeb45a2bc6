"""Group commit: transactions shared by the callers that wait for one at the same time.

A commit costs a disk sync however many rows it holds. Whoever finds none under way runs one at once, alone and without
a hand-over to another thread; whoever comes meanwhile is taken along by the next.
"""

import threading
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

from sqlalchemy.exc import SQLAlchemyError

Item = TypeVar("Item")
Outcome = TypeVar("Outcome")


class _Ticket(Generic[Item, Outcome]):
    """One caller's item and what became of it."""

    def __init__(self, item: Item) -> None:
        self.item = item
        self.settled = False
        self.outcome: Outcome
        self.error: BaseException | None = None


class GroupCommit(Generic[Item, Outcome]):
    """Runs ``commit`` for all waiting items in one transaction; thread-safe.

    ``commit`` takes the items in the order they came and returns an outcome for each; if it raises, nothing was
    committed. Then each item is tried alone, so that one that cannot be committed costs the others nothing.
    """

    def __init__(self, commit: Callable[[Sequence[Item]], Sequence[Outcome]], maximum_items: int = 64) -> None:
        self._commit = commit
        self._maximum_items = maximum_items
        self._waiting: list[_Ticket[Item, Outcome]] = []
        self._lock = threading.Lock()
        self._turn = threading.Lock()

    def __call__(self, item: Item) -> Outcome:
        """Commit ``item``, return its outcome or raise its error."""
        ticket: _Ticket[Item, Outcome] = _Ticket(item)
        with self._lock:
            self._waiting.append(ticket)
        while not ticket.settled:
            with self._turn:
                if not ticket.settled:
                    self._run()
        if ticket.error is not None:
            raise ticket.error
        return ticket.outcome

    def _run(self) -> None:
        with self._lock:
            tickets = self._waiting[: self._maximum_items]
            del self._waiting[: self._maximum_items]
        try:
            if len(tickets) > 1 and self._settle(tickets) is None:
                return
            for ticket in tickets:
                ticket.error = self._settle([ticket])
                ticket.settled = True
        except BaseException as error:  # a defect, or the end of this thread: nobody may wait for ever because of it
            for ticket in tickets:
                if not ticket.settled:
                    ticket.error, ticket.settled = error, True
            raise

    def _settle(self, tickets: Sequence[_Ticket[Item, Outcome]]) -> Exception | None:
        """Commit the tickets together; why not, None if they are settled."""
        try:
            outcomes = self._commit([ticket.item for ticket in tickets])
        except (SQLAlchemyError, ValueError, OSError) as error:
            return error
        for ticket, outcome in zip(tickets, outcomes, strict=True):
            ticket.outcome = outcome
            ticket.settled = True
        return None
