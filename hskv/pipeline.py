"""Several requests in one write."""

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any, Self

from .exceptions import OperationalError
from .exchange import Exchange, understood
from .lookups import Condition, Value, insert_body, lookup_of, modify_body, rows_of, rows_of_index
from .transport.channel import Index
from .transport.retry import Effect
from .wire import requests
from .wire.replies import Row, generated_id, modified_rows


class Pipeline:
    """Requests collected and sent in one write, their replies read in order.

    Goes to the write port as soon as one of the requests is a write (finds on it take locks),
    else to the read port. Not a transaction, and another client may come in between. An
    instance is for one thread; after `execute` it is empty and can be used again.

    >>> client = store.client
    >>> index = client.open("kv", ["k", "n"])
    >>> client.pipeline().insert(index, ["a", 1]).find(index, "=", ["a"]).execute()
    [None, [(b'a', b'1')]]
    """

    def __init__(self, client: Exchange) -> None:
        self._client = client
        self._calls: list[tuple[Index, bytes]] = []
        self._results: list[Callable[[list[Row]], Any]] = []
        self._effect = Effect.READ

    def __len__(self) -> int:
        return len(self._calls)

    def find(
        self,
        index: Index,
        operation: str,
        key: Sequence[Value],
        *,
        limit: int = 1,
        offset: int = 0,
        in_: tuple[int, Sequence[Value]] | None = None,
        filters: Iterable[Condition] = (),
        while_: Iterable[Condition] = (),
    ) -> Self:
        """As `Client.find`; its result is a list of rows."""
        lookup = lookup_of(index, operation, key, limit, offset, in_, filters, while_)
        return self._add(index, requests.find(*lookup), partial(rows_of_index, index))

    def insert(self, index: Index, values: Sequence[Value]) -> Self:
        """As `Client.insert`; its result is the generated number or None."""
        return self._write(index, insert_body(index, values), generated_id)

    def modify(
        self,
        index: Index,
        operation: str,
        key: Sequence[Value],
        modify_operation: str,
        values: Sequence[Value] = (),
        *,
        limit: int = 1,
        offset: int = 0,
        in_: tuple[int, Sequence[Value]] | None = None,
        filters: Iterable[Condition] = (),
        while_: Iterable[Condition] = (),
    ) -> Self:
        """As `Client.modify`; its result is the number of rows."""
        lookup = lookup_of(index, operation, key, limit, offset, in_, filters, while_)
        return self._write(
            index, modify_body(index, lookup, modify_operation, values), modified_rows
        )

    def modify_returning(
        self,
        index: Index,
        operation: str,
        key: Sequence[Value],
        modify_operation: str,
        values: Sequence[Value] = (),
        *,
        limit: int = 1,
        offset: int = 0,
        in_: tuple[int, Sequence[Value]] | None = None,
        filters: Iterable[Condition] = (),
        while_: Iterable[Condition] = (),
    ) -> Self:
        """As `Client.modify_returning`; its result is a list of rows."""
        lookup = lookup_of(index, operation, key, limit, offset, in_, filters, while_)
        body = modify_body(index, lookup, modify_operation, values, returning=True)
        return self._write(index, body, partial(rows_of_index, index))

    def execute(self, raise_on_error: bool = True) -> list[Any]:
        """Send all, and give a result for each request, in order.

        An error of the server stands in the list in the place of its result, or is raised (the
        first of them) after all replies were read. Raises OutcomeUnknownError where a write was
        sent and the replies were lost, TransactionAbortedError where the server rolled back.
        """
        calls, results, effect = self._calls, self._results, self._effect
        self._calls, self._results, self._effect = [], [], Effect.READ
        if not calls:
            return []
        replies = self._client.call_many(calls, effect)
        if raise_on_error:
            for reply in replies:
                rows_of(reply)
        return [
            reply
            if isinstance(reply, OperationalError)
            else understood(self._client, result, reply)
            for result, reply in zip(results, replies, strict=True)
        ]

    def _write(self, index: Index, body: bytes, result: Callable[[list[Row]], Any]) -> Self:
        self._effect = Effect.WRITE
        return self._add(index, body, result)

    def _add(self, index: Index, body: bytes, result: Callable[[list[Row]], Any]) -> Self:
        self._calls.append((index, body))
        self._results.append(result)
        return self
