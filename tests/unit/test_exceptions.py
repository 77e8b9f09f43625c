import builtins
import inspect
import pickle

import pytest

import hskv
from hskv import exceptions
from hskv.exceptions import BatchError, HandlerSocketError, OperationalError, OutcomeUnknownError

EXCEPTIONS = [
    value
    for value in vars(exceptions).values()
    if inspect.isclass(value) and issubclass(value, HandlerSocketError)
]


@pytest.mark.parametrize("kind", EXCEPTIONS, ids=lambda kind: kind.__name__)
def test_every_error_pickles_with_its_message_and_attributes(
    kind: type[HandlerSocketError],
) -> None:
    error = kind("what to do")
    error.note = ("any", 1)  # type: ignore[attr-defined]
    for protocol in range(2, pickle.HIGHEST_PROTOCOL + 1):
        copy = pickle.loads(pickle.dumps(error, protocol))
        assert type(copy) is kind
        assert copy.args == ("what to do",)
        assert vars(copy) == vars(error)


@pytest.mark.parametrize("kind", EXCEPTIONS, ids=lambda kind: kind.__name__)
def test_every_error_is_documented_and_takes_one_positional_argument(
    kind: type[HandlerSocketError],
) -> None:
    assert kind.__doc__
    assert str(kind("message")) == "message"


@pytest.mark.parametrize(
    "kind",
    [kind for kind in EXCEPTIONS if issubclass(kind, OperationalError)],
    ids=lambda kind: kind.__name__,
)
def test_a_server_error_pickles_with_code_and_reason(kind: type[OperationalError]) -> None:
    copy = pickle.loads(pickle.dumps(kind("no", code=1, reason="121")))
    assert (str(copy), copy.code, copy.reason) == ("no", 1, "121")
    assert (kind("no").code, kind("no").reason) == (None, None)


def test_an_unknown_outcome_pickles_with_its_version() -> None:
    error = OutcomeUnknownError("lost")
    assert error.version is None
    error.version = 7
    assert pickle.loads(pickle.dumps(error)).version == 7


def test_a_batch_error_pickles_with_its_keys() -> None:
    error = BatchError("stopped", stored=("a",), failed=("b", 1), unknown=(b"c",))
    copy = pickle.loads(pickle.dumps(error))
    assert (copy.stored, copy.failed, copy.unknown) == (("a",), ("b", 1), (b"c",))


@pytest.mark.parametrize(
    ("kind", "bases"),
    [
        (exceptions.ConnectionError, (builtins.ConnectionError,)),
        (exceptions.RequestTimeoutError, (TimeoutError, exceptions.ConnectionError)),
        (exceptions.PoolTimeoutError, (TimeoutError, exceptions.ConnectionError)),
        (exceptions.RecoverableConnectionError, (exceptions.IndexedConnectionError,)),
        (exceptions.OutcomeUnknownError, (exceptions.IndexedConnectionError,)),
        (exceptions.TransactionAbortedError, (OperationalError, OutcomeUnknownError)),
        (exceptions.KeyTooLongError, (ValueError,)),
        (exceptions.ValueTooLargeError, (ValueError,)),
        (exceptions.SerializationError, (ValueError,)),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_errors_are_also_the_builtins_they_stand_for(
    kind: type[HandlerSocketError], bases: tuple[type[BaseException], ...]
) -> None:
    assert issubclass(kind, bases)
    assert all(issubclass(kind, base) for base in (*bases, HandlerSocketError))


def test_the_package_names_every_error_but_the_one_that_shadows_a_builtin() -> None:
    hidden = {kind.__name__ for kind in EXCEPTIONS} - set(hskv.__all__)
    assert hidden == {"ConnectionError"}
