"""pyhs's names and signatures, written out from its manual and source, against hskv's."""

import inspect
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

import hskv
import hskv.exceptions
import hskv.manager
import hskv.sockets
from hskv.manager import Manager
from hskv.sockets import Connection, HandlerSocket, ReadSocket, WriteSocket

LOOKUP = "db, table, operation, fields, values"
RANGE = "index_name=None, limit=0, offset=0"
CHANGED = f"{RANGE}, return_original=False"

SIGNATURES: dict[Callable[..., Any], str] = {
    Manager: "read_servers=None, write_servers=None, debug=False",
    Manager.get: "self, db, table, fields, value",
    Manager.find: f"self, {LOOKUP}, {RANGE}",
    Manager.insert: "self, db, table, fields, index_name=None",
    Manager.update: f"self, {LOOKUP}, update_values, {CHANGED}",
    Manager.incr: f"self, {LOOKUP}, step=['1'], {CHANGED}",
    Manager.decr: f"self, {LOOKUP}, step=['1'], {CHANGED}",
    Manager.delete: f"self, {LOOKUP}, {CHANGED}",
    Manager.purge: "self",
    HandlerSocket: "servers, debug=False",
    ReadSocket: "servers, debug=False",
    WriteSocket: "servers, debug=False",
    HandlerSocket.get_index_id: "self, db, table, fields, index_name=None",
    HandlerSocket.purge: "self",
    HandlerSocket.purge_index: "self, index_id",
    HandlerSocket.purge_indexes: "self",
    ReadSocket.find: "self, index_id, operation, columns, limit=0, offset=0",
    WriteSocket.insert: "self, index_id, columns",
    WriteSocket.find_modify: (
        "self, index_id, operation, columns, modify_operation, modify_columns=[], limit=0, offset=0"
    ),
    Connection: "protocol, host, port=None, timeout=None",
    Connection.connect: "self",
    Connection.disconnect: "self",
    Connection.is_ready: "self",
    Connection.readline: "self",
    Connection.send: "self, data",
    Connection.set_debug_mode: "self, mode",
}

NEW_KEYWORDS: dict[Callable[..., Any], set[str]] = {
    Manager: {"secret", "write_secret", "timeout", "pool_timeout"},
    ReadSocket: {"secret", "timeout", "pool_timeout"},
    WriteSocket: {"secret", "timeout", "pool_timeout"},
    **{
        method: {"filters", "while_", "in_"}
        for method in (
            Manager.find,
            Manager.update,
            Manager.incr,
            Manager.decr,
            Manager.delete,
            ReadSocket.find,
            WriteSocket.find_modify,
        )
    },
}

CONSTANTS: dict[tuple[type, str], Any] = {
    (Connection, "UNIX_PROTO"): "unix",
    (Connection, "INET_PROTO"): "inet",
    (Connection, "DEFAULT_TIMEOUT"): 3,
    (Connection, "RETRY_INTERVAL"): 30,
    (HandlerSocket, "RETRY_LIMIT"): 5,
    (HandlerSocket, "FIND_OPERATIONS"): ("=", ">", ">=", "<", "<="),
    (ReadSocket, "FIND_OPERATIONS"): ("=", ">", ">=", "<", "<="),
    (WriteSocket, "MODIFY_OPERATIONS"): ("U", "D", "+", "-", "U?", "D?", "+?", "-?"),
}

ERRORS = {
    "ConnectionError",
    "OperationalError",
    "RecoverableConnectionError",
    "IndexedConnectionError",
}
SOCKETS = {"Connection", "HandlerSocket", "ReadSocket", "WriteSocket"}


def qualified(function: Any) -> str:
    return str(function.__qualname__)


def star_names(module: str) -> dict[str, Any]:
    names: dict[str, Any] = {}
    exec(f"from {module} import *", names)
    return names


@pytest.mark.parametrize(("ours", "pyhs"), SIGNATURES.items(), ids=map(qualified, SIGNATURES))
def test_what_pyhs_takes_by_position_is_taken_under_its_names_in_its_order_with_its_defaults(
    ours: Callable[..., Any], pyhs: str
) -> None:
    positional = [
        parameter.replace(annotation=inspect.Parameter.empty)
        for parameter in inspect.signature(ours).parameters.values()
        if parameter.kind is not inspect.Parameter.KEYWORD_ONLY
    ]
    assert {one.kind for one in positional} <= {inspect.Parameter.POSITIONAL_OR_KEYWORD}
    assert str(inspect.Signature(positional)) == f"({pyhs})"


@pytest.mark.parametrize("ours", SIGNATURES, ids=qualified)
def test_all_that_is_new_can_be_left_out_and_is_given_by_keyword(
    ours: Callable[..., Any],
) -> None:
    parameters = inspect.signature(ours).parameters.values()
    new = {one.name: one for one in parameters if one.kind is inspect.Parameter.KEYWORD_ONLY}
    assert new.keys() >= NEW_KEYWORDS.get(ours, set())
    assert all(one.default is not inspect.Parameter.empty for one in new.values())


@pytest.mark.parametrize(
    ("owner", "name"), CONSTANTS, ids=[f"{owner.__name__}.{name}" for owner, name in CONSTANTS]
)
def test_constants_are_as_they_were(owner: type, name: str) -> None:
    assert getattr(owner, name) == CONSTANTS[owner, name]
    assert type(getattr(owner, name)) is type(CONSTANTS[owner, name])


def test_modules_keep_their_names() -> None:
    for module, names in (
        (hskv.manager, {"Manager"}),
        (hskv.sockets, SOCKETS),
        (hskv.exceptions, ERRORS),
    ):
        assert all(inspect.isclass(getattr(module, name)) for name in names)
        assert {getattr(module, name).__module__ for name in names} == {module.__name__}
    assert hskv.Manager is Manager


def test_a_star_import_of_the_exceptions_gives_those_that_a_pyhs_program_catches() -> None:
    names = star_names("hskv.exceptions")
    assert {name: names[name] for name in ERRORS} == {
        name: getattr(hskv.exceptions, name) for name in ERRORS
    }


def test_a_star_import_of_the_sockets_gives_the_exceptions_too_as_pyhss_did() -> None:
    assert star_names("hskv.sockets").keys() >= SOCKETS | ERRORS


def test_the_exceptions_are_related_as_in_pyhs() -> None:
    errors = hskv.exceptions
    assert issubclass(errors.RecoverableConnectionError, errors.ConnectionError)
    assert issubclass(errors.IndexedConnectionError, errors.ConnectionError)
    assert not issubclass(errors.OperationalError, errors.ConnectionError)
    assert not issubclass(errors.ConnectionError, errors.OperationalError)


def test_a_manager_has_pyhss_sockets() -> None:
    with Manager() as manager:
        assert isinstance(manager.read_socket, ReadSocket)
        assert isinstance(manager.write_socket, WriteSocket)
    assert issubclass(ReadSocket, HandlerSocket)
    assert issubclass(WriteSocket, HandlerSocket)


def test_a_connection_has_pyhss_attributes() -> None:
    connection = Connection("inet", "localhost", 9998)
    assert connection.retry_time == 0
    assert connection.timeout == 3
    assert connection.socket is None
    assert connection.debug is False


def test_the_defaults_of_a_manager_are_the_ports_of_localhost() -> None:
    assert repr(Manager()) == "<Manager over <Client of localhost:9998, localhost:9999>>"
    assert repr(Manager([], [])) == repr(Manager())


def test_the_default_step_is_never_changed() -> None:
    for method in (Manager.incr, Manager.decr):
        assert inspect.signature(method).parameters["step"].default == ["1"]


def test_importing_pyhss_modules_alone_works() -> None:
    program = "import hskv.sockets, hskv.exceptions, hskv.manager; hskv.manager.Manager()"
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, timeout=30)
    assert (ran.returncode, ran.stderr) == (0, b"")
