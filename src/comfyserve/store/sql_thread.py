"""One thread that has the database, and one transaction for everybody who waits meanwhile."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import Callable
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from types import TracebackType
from typing import Any, Final, Self, TypeVar

from comfyserve.refusals import StoreUnavailable
from comfyserve.store.dialects import Sql

Result = TypeVar("Result")

_MOST_WAITING: Final = 1024
_MOST_TOGETHER: Final = 256


class SqlThread:
    """Does pieces of work in order, many in one transaction, each whole or not at all.

    A piece of work is a function that gets the connection; *begin* starts a transaction. What it
    raises undoes it alone and goes to who asked. A caller that was canceled while it waited does
    not know whether its work was done. Where the database itself fails, nothing of the
    transaction is kept, and everybody in it gets `StoreUnavailable`. Leaving the context does all
    that was asked for before.

    With *takes_late* who asks while a transaction goes on still gets into it. That is for one
    that writes: one that only reads may not see what was written since it began.
    """

    def __init__(
        self,
        name: str,
        connect: Callable[[], sqlite3.Connection],
        begin: str,
        *,
        takes_late: bool = False,
    ) -> None:
        self._name = name
        self._connect = connect
        self._begin = begin
        self._takes_late = takes_late
        self._asked: SimpleQueue[_Request | None] = SimpleQueue()
        self._room = asyncio.Semaphore(_MOST_WAITING)
        self._closed = False

    async def __aenter__(self) -> Self:
        self._loop = asyncio.get_running_loop()
        try:
            self._connection = self._connect()
        except sqlite3.Error as error:
            raise self._failure(error) from error
        self._sql = Sql(self._connection)
        # A thread that would keep the interpreter from ending must not outlive a lost loop.
        self._thread = threading.Thread(target=self._run, name="store", daemon=True)
        self._thread.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._closed = True
        self._asked.put(None)
        await asyncio.shield(asyncio.to_thread(self._thread.join))

    async def do(
        self,
        work: Callable[[Sql], Result],
        then: Callable[[Result], None] | None = None,
        *,
        asked: Callable[[], None] | None = None,
    ) -> Result:
        """The result of *work*, once what it wrote lasts.

        *then* is called with it before, in the order in which work was done, and also where who
        asked was canceled meanwhile. *asked* is called at once: what is asked for from then on is
        done after *work*.
        """
        async with self._room:
            if self._closed:
                raise StoreUnavailable(self._name, "it was closed")
            done: asyncio.Future[Result] = self._loop.create_future()
            self._asked.put(_Request(work, done, then))
            if asked is not None:
                asked()
            return await done

    def _run(self) -> None:
        try:
            while batch := self._next_batch():
                self._do_together(batch)
                self._tell(batch)
        finally:
            self._connection.close()

    def _next_batch(self) -> list[_Request]:
        """Everybody who waits now; nobody once the thread was closed."""
        request = self._asked.get()
        if request is None:
            return []
        batch = [request]
        self._add_waiting(batch)
        return batch

    def _add_waiting(self, batch: list[_Request]) -> None:
        while len(batch) < _MOST_TOGETHER:
            try:
                request = self._asked.get_nowait()
            except Empty:
                return
            if request is None:
                self._asked.put(None)  # read again once this last batch is done
                return
            batch.append(request)

    def _do_together(self, batch: list[_Request]) -> None:
        try:
            self._sql.change(self._begin)
            for request in batch:  # which grows meanwhile
                self._do_one(request, alone=len(batch) == 1)
                if self._takes_late and request is batch[-1]:
                    self._add_waiting(batch)
            self._sql.change("COMMIT")
        except Exception as error:
            self._undo()
            failure = self._failure(error)
            for request in batch:
                request.error = request.error or failure

    def _do_one(self, request: _Request, *, alone: bool) -> None:
        if alone:
            request.result = request.work(self._sql)
            return
        self._sql.change("SAVEPOINT one")
        try:
            request.result = request.work(self._sql)
        except Exception as error:
            # After a full disk the database may have undone everything by itself.
            if not self._connection.in_transaction:
                raise
            self._sql.change("ROLLBACK TO one")
            request.error = self._failure(error)
        self._sql.change("RELEASE one")

    def _undo(self) -> None:
        if self._connection.in_transaction:
            self._connection.rollback()

    def _failure(self, error: Exception) -> Exception:
        if not isinstance(error, sqlite3.Error):
            return error
        return StoreUnavailable(self._name, str(error))

    def _tell(self, batch: list[_Request]) -> None:
        try:
            self._loop.call_soon_threadsafe(_resolve, batch)
        except RuntimeError:  # the loop was closed, so nobody waits
            return


@dataclass(slots=True, eq=False)
class _Request:
    work: Callable[[Sql], Any]
    done: asyncio.Future[Any]
    then: Callable[[Any], None] | None = None
    result: Any = None
    error: Exception | None = None


def _resolve(batch: list[_Request]) -> None:
    for request in batch:
        if request.error is None and request.then is not None:
            _call(request.then, request.result)
        if request.done.done():
            continue
        if request.error is not None:
            request.done.set_exception(request.error)
        else:
            request.done.set_result(request.result)


def _call(then: Callable[[Any], None], result: Any) -> None:
    """What goes wrong there must not keep others from their results."""
    try:
        then(result)
    except Exception as error:
        told = {"message": "what was kept could not be told", "exception": error}
        asyncio.get_running_loop().call_exception_handler(told)
