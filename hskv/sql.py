"""Statements to the SQL server that is written to: the one place that sends one again."""

import logging
import random
from collections.abc import Callable, Sequence
from copy import copy
from functools import partial
from time import monotonic, sleep
from typing import Any, Final, NamedTuple, Self, cast

from .exceptions import (
    HandlerSocketError,
    LockTimeoutError,
    OperationalError,
    OutcomeUnknownError,
    ReadOnlyError,
    ValueTooLargeError,
)
from .observed import RequestInfo, tell
from .transport.address import Settings
from .transport.endpoint import Address
from .transport.health import Health
from .transport.pool import ChannelPool
from .transport.retry import Effect, failure, pauses, repeatable
from .transport.servers import Servers
from .transport.sql_address import SqlLogin
from .transport.sql_channel import Result, SqlChannel, State
from .transport.sql_errors import DEADLOCKS, ELSEWHERE
from .transport.sql_servers import SqlServers

_log = logging.getLogger("hskv")

_CONNECTION_LIFETIME_SECONDS: Final = 3600.0
_DEADLOCK_ATTEMPTS: Final = 10
_DEADLOCK_PAUSE_SECONDS: Final = 0.005
# Each is committed by itself, which takes its time.
_MOST_STATEMENTS: Final = 50
# What stands in a network packet beside the statements.
_PACKET_HEAD: Final = 16


class Statement(NamedTuple):
    """What is atomic by itself, committed at once. `results` are those its text gives."""

    text: bytes
    effect: Effect
    results: int = 1
    table: str = ""
    reads_back: bool = False
    """Whether the first result is of the write, and the rest what that kept in variables."""


Answer = Sequence[Result] | OperationalError
"""The results of a statement, or what the server said against it: then it was not carried out."""

SqlSide = SqlServers | Servers[SqlChannel]
"""What leads the connections: to the one server that is written to, or to all that are well."""


class SqlClient:
    """Carries out statements, each a transaction, on the server to be written to.

    May be shared by threads, and used after a fork. Needs PyMySQL.
    """

    def __init__(self, settings: Settings, login: SqlLogin, health: Health | None = None) -> None:
        try:
            import pymysql
        except ImportError as error:
            raise ImportError("sql= needs PyMySQL: pip install 'hskv[sql]'") from error
        # Before it a server that offers no TLS was spoken to in plain text.
        if login.tls is not None and pymysql.VERSION < (1, 2):
            raise ImportError("sql_ssl needs PyMySQL 1.2 or later: pip install -U 'hskv[sql]'")
        self._timeout = settings.timeout
        self._on_request = settings.on_request
        self.facts: dict[bytes, Any] = {}
        """What is known of tables, by name."""
        self.passed: set[tuple[bytes, bool]] = set()
        """Which tables HandlerSocket may read, or (True) write too."""
        self.servers = SqlServers([_pool(settings, login, address) for address in login.hosts])
        self.side: SqlSide = self.servers
        self._acquire = self.servers.acquire
        self.replicas = self
        """The same, for reads that may be a little old: from all servers that are well."""
        if health is not None and settings.reads == "sql":
            balanced = Servers(self.servers.pools, health)
            self.replicas = self._going(balanced, balanced.acquire)

    def anywhere(self) -> Self:
        """The same, for what the first server that answers may tell, read-only or not."""
        return self._going(self.servers, self.servers.acquire_any)

    def run(self, statements: Sequence[Statement]) -> list[Answer]:
        """Send statements in one packet; their answers, in order.

        Other clients may come in between any two. What the server undid for the sake of another
        (a deadlock, a lock that was not had) is sent again, as is what a server refused that is
        no longer the one to write to. Who may not log in is answered so for each that is left.
        Raises OutcomeUnknownError where a write was sent and its answer was lost, or not all
        were sent; ConnectionError; ValueTooLargeError before anything is sent.
        """
        answers: list[Answer] = []
        attempts = _Attempts(monotonic() + self._timeout)
        while len(answers) < len(statements):
            rest = statements[len(answers) :]
            effect = _effect(rest[:_MOST_STATEMENTS])
            began = monotonic()
            results, failed = self._exchange(rest, effect, attempts.deadline)
            answers += results
            if results:
                attempts.deadlocks = 0
            if failed is not None:
                if not self.servers.closed and attempts.again(failed, effect, began):
                    continue
                if not isinstance(failed, OperationalError):
                    raise _told(failed, statements, answers) from failed.__cause__
                answers += [failed] * (len(statements) - len(answers) if _waited(failed) else 1)
            attempts = _Attempts(monotonic() + self._timeout)
        return answers

    def state(self) -> State:
        """What the server says of itself; it is asked when it is connected."""
        channel = self._acquire()
        self.side.release(channel)
        return channel.state

    def room(self) -> int:
        """How many bytes a statement may have, on the connection that comes next."""
        channel = self._acquire()
        self.side.release(channel)
        return channel.max_packet - _PACKET_HEAD - 1

    def _going(self, side: SqlSide, acquire: Callable[[], SqlChannel]) -> Self:
        """The same, on connections that are had otherwise."""
        client = copy(self)
        client.side, client._acquire = side, acquire
        return client

    def _exchange(
        self, statements: Sequence[Statement], effect: Effect, deadline: float
    ) -> tuple[list[Answer], HandlerSocketError | None]:
        """One attempt, of as many as go at once; what was answered, and by what it ended."""
        began = monotonic()
        answers: list[Answer] = []
        failed: HandlerSocketError | None = None
        error: BaseException | None = None
        # How many fit is known with a connection; without one, these could not be sent.
        sent = statements[:_MOST_STATEMENTS]
        try:
            channel = self._acquire()
            sent = self._fitting(statements, channel)
            answers, failed = self._attempt(sent, channel, effect, deadline)
        except ValueTooLargeError as refused:
            failed, sent = refused, ()
        except OperationalError as refused:
            # Of who may not log in: nothing of all of them is sent.
            answers, error = [refused] * len(statements), refused
        except HandlerSocketError as lost:
            failed = lost
        except BaseException as other:
            error = other
            raise
        finally:
            if self._on_request is not None and sent:
                seconds = monotonic() - began
                tell(self._on_request, _info(sent, answers, seconds, failed or error))
        return answers, failed

    def _fitting(self, statements: Sequence[Statement], channel: SqlChannel) -> Sequence[Statement]:
        try:
            return _fitting(statements, channel.max_packet)
        except ValueTooLargeError:
            self.side.release(channel)
            raise

    def _attempt(
        self, sent: Sequence[Statement], channel: SqlChannel, effect: Effect, deadline: float
    ) -> tuple[list[Answer], HandlerSocketError | None]:
        try:
            packet = b";".join([statement.text for statement in sent])
            count = sum([statement.results for statement in sent])
            results, refused = channel.run(packet, count, deadline)
        except BaseException as error:
            reported = self._lost(channel, error, effect)
            if reported is error:
                raise
            raise reported from error
        answers = _by_statement(sent, results)
        if refused is None:
            self.side.release(channel)
            return answers, None
        self._give_back(channel, refused)
        begun = len(results) > sum([statement.results for statement in sent[: len(answers)]])
        return answers, _fate(refused, sent[len(answers)], effect, begun=begun)

    def _give_back(self, channel: SqlChannel, refused: HandlerSocketError) -> None:
        if not isinstance(refused, OperationalError):
            self.side.discard(channel, refused)
        elif refused.code in ELSEWHERE:
            # It is asked what it is before it is used again.
            channel.looked = 0.0
            self.side.release(channel)
        else:
            self.side.release(channel)

    def _lost(self, channel: SqlChannel, error: BaseException, effect: Effect) -> BaseException:
        self.side.discard(channel, error)
        return failure(error, effect)


class _Attempts:
    """Whether, and after which pause, to send again."""

    def __init__(self, deadline: float) -> None:
        self.deadline = deadline
        self._pauses = pauses(deadline)
        self.deadlocks = 0

    def again(self, error: HandlerSocketError, effect: Effect, began: float) -> bool:
        """Wait, if what failed with `error` may be sent again; else False."""
        if isinstance(error, OperationalError) and error.code in DEADLOCKS:
            self.deadlocks += 1
            pause: float | None = _DEADLOCK_PAUSE_SECONDS * random.uniform(0.1, self.deadlocks)
            if self.deadlocks >= _DEADLOCK_ATTEMPTS:
                return False
        elif isinstance(error, (ReadOnlyError, LockTimeoutError)) or repeatable(error, effect):
            pause = next(self._pauses, None)
        else:
            return False
        took = monotonic() - began if isinstance(error, LockTimeoutError) else 0.0
        if pause is None or monotonic() + pause + took >= self.deadline:
            return False
        _log.info("sending again after: %s", error)
        sleep(pause)
        return True


def _pool(settings: Settings, login: SqlLogin, address: Address) -> ChannelPool[SqlChannel]:
    connect = partial(
        SqlChannel,
        address,
        login,
        connect_timeout=settings.connect_timeout,
        timeout=settings.timeout,
        lifetime=_CONNECTION_LIFETIME_SECONDS,
    )
    # A write on a connection whose server went away would be lost.
    return ChannelPool(
        connect, size=settings.pool_size, timeout=settings.pool_timeout, peek_after=0.0
    )


def _effect(statements: Sequence[Statement]) -> Effect:
    effects = {statement.effect for statement in statements}
    return effects.pop() if len(effects) == 1 else Effect.WRITE


def _fitting(statements: Sequence[Statement], max_packet: int) -> Sequence[Statement]:
    """As many of them as go at once. Raises ValueTooLargeError where one of all fits in nowhere."""
    largest = _PACKET_HEAD + max([len(statement.text) for statement in statements]) + 1
    if largest > max_packet:
        raise ValueTooLargeError(
            f"the statement has {largest} bytes, max_allowed_packet of the server is "
            f"{max_packet}: store less at once, or raise it"
        )
    size = _PACKET_HEAD
    for number, statement in enumerate(statements[:_MOST_STATEMENTS]):
        size += len(statement.text) + 1
        if size > max_packet:
            return statements[:number]
    return statements[:_MOST_STATEMENTS]


def _by_statement(statements: Sequence[Statement], results: list[Result]) -> list[Answer]:
    """The results of those statements that gave all of theirs."""
    answers: list[Answer] = []
    for statement in statements:
        if len(results) < statement.results:
            break
        answers.append(results[: statement.results])
        results = results[statement.results :]
    return answers


def _fate(
    refused: HandlerSocketError, statement: Statement, effect: Effect, *, begun: bool
) -> HandlerSocketError:
    """What became of the statement that a server stopped at; `begun` where it gave a result."""
    if begun and statement.reads_back:
        return OutcomeUnknownError(
            f"a write was done, and what it gives was lost: read the row ({refused})"
        )
    return cast(HandlerSocketError, failure(refused, effect))


def _waited(refused: OperationalError) -> bool:
    """True when the time is up, in which the rest would wait for the same: it is not sent."""
    if refused.code in DEADLOCKS:
        return False
    return isinstance(refused, (ReadOnlyError, LockTimeoutError))


def _told(
    error: HandlerSocketError, statements: Sequence[Statement], answers: Sequence[Answer]
) -> HandlerSocketError:
    """The error, which says so where writes in front of what failed were carried out.

    Where no time is left to wait for a promotion it is the refusal of a server.
    """
    if isinstance(error.__cause__, OperationalError):
        error = error.__cause__
    done = zip(statements, answers, strict=False)
    wrote = any(one.effect is not Effect.READ and isinstance(got, list) for one, got in done)
    return half_done(error) if wrote else error


def half_done(error: HandlerSocketError) -> OutcomeUnknownError:
    """The error, where writes in front of what failed with it were carried out."""
    if isinstance(error, OutcomeUnknownError):
        return error
    return OutcomeUnknownError(
        f"a part of the writes was done, the rest was not: read the rows again ({error})"
    )


def _info(
    statements: Sequence[Statement],
    answers: Sequence[Answer],
    seconds: float,
    error: BaseException | None,
) -> RequestInfo:
    first = statements[0]
    operation = "pipeline"
    if len(statements) == 1:
        inserts = first.text.startswith(b"INSERT")
        operation = "find" if first.effect is Effect.READ else "insert" if inserts else "modify"
    results = [result for answer in answers if isinstance(answer, list) for result in answer]
    return RequestInfo(
        operation=operation,
        table=first.table,
        seconds=seconds,
        bytes_sent=sum(len(statement.text) for statement in statements),
        bytes_received=sum(len(cell or b"") for one in results for row in one.rows for cell in row),
        requests=len(statements),
        error=error,
    )
