"""What hskv relies on in the server's replies, errors, bytes and locks, asked without hskv."""

import re
from collections.abc import Callable, Iterator
from time import sleep
from typing import Any

import pymysql
import pytest

from hskv.mariadb import PrivateServer

Ask = Callable[[str], str]

ALL_BYTES = bytes(range(256))


def encode(value: bytes) -> bytes:
    return re.sub(rb"[\0-\x0f]", lambda found: bytes([1, found[0][0] + 0x40]), value)


class TestReplies:
    @pytest.mark.parametrize(
        ("request_", "reply"),
        [
            ("1 = 1 1", "0 3 1 10 a"),
            ("1 = 1 99", "0 3"),
            ("1 >= 1 1 2 0", "0 3 1 10 a 2 20 b"),
            ("1 = 1 3", "0 3 3 30 \0"),
            ("1 = 1 4", "0 3 4 40 "),
            ("P 9 hskv facts_rows PRIMARY n", "0 1"),
            ("P 9 hskv facts_rows PRIMARY v\n9 = 1 4", "0 1\n0 1 "),
            ("P 9 hskv facts_rows PRIMARY v\n9 = 1 3", "0 1\n0 1 \0"),
        ],
    )
    def test_find_answers_its_columns_and_rows(self, rd: Ask, request_: str, reply: str) -> None:
        assert rd(request_) == reply

    def test_index_without_columns_hides_whether_a_row_is_there(self, rd: Ask) -> None:
        assert rd("P 9 hskv facts_rows PRIMARY \n9 = 1 1\n9 = 1 99") == "0 1\n0 0\n0 0"

    def test_insert_answers_an_id_only_where_one_is_generated(self, wr: Ask) -> None:
        assert wr("1 + 3 6 60 f") == "0 1"
        generated = re.fullmatch(r"0 1 (\d+)", wr("5 + 2 \0 1"))
        assert generated
        assert int(generated[1]) > 0

    def test_update_counts_the_rows_it_met_even_unchanged(self, wr: Ask) -> None:
        assert wr("2 = 1 1 1 0 U 11 x") == "0 1 1"
        assert wr("2 = 1 1 1 0 U 11 x") == "0 1 1"
        assert wr("2 = 1 99 1 0 U 11 x") == "0 1 0"
        assert wr("1 >= 1 1 3 0 D") == "0 1 3"

    @pytest.mark.parametrize("change", ["U? 7 x", "+? 7", "D?"])
    def test_question_mark_answers_the_values_before(self, wr: Ask, change: str) -> None:
        assert wr(f"2 = 1 1 1 0 {change}") == "0 2 10 a"
        assert wr(f"2 = 1 99 1 0 {change}") == "0 2"

    def test_question_mark_tells_an_empty_value_from_no_row(self, wr: Ask) -> None:
        wr("P 9 hskv facts_rows PRIMARY v")
        assert wr("9 = 1 4 1 0 D?\n9 = 1 4 1 0 D?") == "0 1 \n0 1"


class TestErrors:
    @pytest.mark.parametrize(
        ("request_", "reply"),
        [
            ("", "2 1 cmd"),
            ("x", "2 1 cmd"),
            ("99 = 1 1", "2 1 stmtnum"),
            ("1 != 1 1", "2 1 op"),
            ("1 = 0", "2 1 klen"),
            ("1 + 0", "2 1 klen"),
            ("1 = 33" + " 1" * 33, "2 1 fldnum"),
            ("1 = 2 1 1", "2 1 kpnum"),
            ("1 = 32" + " 1" * 32, "2 1 kpnum"),
            ("P 9 hskv facts_rows missing id", "2 1 idxnum"),
            ("P 9 hskv facts_rows primary id", "2 1 idxnum"),
            ("P 9 hskv facts_bare PRIMARY a", "2 1 idxnum"),
            ("P 9 hskv facts_rows PRIMARY ID", "2 1 fld"),
            ("P 9 hskv facts_rows PRIMARY id missing", "2 1 fld"),
            ("P 9 hskv missing PRIMARY id", "1 1 open_table"),
            ("P 9 missing facts_rows PRIMARY id", "1 1 open_table"),
            ("P 9 hskv FACTS_ROWS PRIMARY id", "1 1 open_table"),
            ("1 + 3 6 60 f", "2 1 readonly"),
            ("1 = 1 1 1 0 D", "2 1 readonly"),
            ("1 = 1 1 1 0 leftover", "2 1 readonly"),
            ("1 = 1 1 2 0 @ 0 0", "2 1 invalueslen"),
            ("1 = 1 1 1 0 FX = 0 1", "2 1 filtertype"),
            ("1 = 1 1 1 0 F = 3 1", "2 1 filterfld"),
            ("4 = 1 abcd 1 0 F = 0 large", "2 1 filterblob"),
            ("1 S 1 1", "2 1 notimpl"),
            ("A 2 secret", "3 1 authtype"),
        ],
    )
    def test_read_port_names_the_mistake(self, rd: Ask, request_: str, reply: str) -> None:
        assert rd(request_) == reply

    @pytest.mark.parametrize(
        ("request_", "reply"),
        [
            ("1 = 1 1 1 0 x", "2 1 modop"),
            ("1 + 3 1 0 x", "1 1 121"),
            ("1 = 1 1 1 0 U 2 0 x", "1 1 121"),
            ("P 9 hskv facts_wide PRIMARY id\n9 + 33" + " 1" * 33, "0 1\n2 1 fldnum"),
            ("P 9 hskv facts_wide PRIMARY id\n9 + 32" + " 1" * 32, "0 1\n0 1"),
        ],
    )
    def test_write_port_names_the_mistake(self, wr: Ask, request_: str, reply: str) -> None:
        assert wr(request_) == reply

    def test_update_may_set_more_columns_than_an_insert(
        self, wr: Ask, sql: Callable[[str], Any]
    ) -> None:
        columns = ",".join(f"c{number}" for number in range(1, 40))
        assert wr(f"P 9 hskv facts_wide PRIMARY {columns}") == "0 1"
        sql("INSERT facts_wide (id) VALUES (1)")
        assert wr("9 = 1 1 1 0 U" + " 7" * 39) == "0 1 1"
        assert wr("9 = 1 1") == "0 39" + " 7" * 39

    def test_requests_before_the_login_are_refused(self, dial: Any) -> None:
        wire = dial("read", login=False)
        assert wire.ask("P 1 hskv facts_rows PRIMARY id\n1 = 1 1") == "3 1 unauth\n3 1 unauth"

    def test_wrong_secret_is_refused_and_logs_out(self, dial: Any) -> None:
        requests = "A 1 wrong\nP 1 hskv facts_rows PRIMARY id"
        assert dial("read").ask(requests) == "3 1 unauth\n3 1 unauth"

    def test_read_secret_does_not_open_the_write_port(
        self, dial: Any, facts_server: PrivateServer
    ) -> None:
        wire = dial("write", login=False)
        assert wire.ask(f"A 1 {facts_server.secret}") == "3 1 unauth"

    def test_login_open_and_find_go_in_one_packet(
        self, dial: Any, rows: None, facts_server: PrivateServer
    ) -> None:
        wire = dial("read", login=False)
        login = f"A 1 {facts_server.secret}"
        open_ = "P 300 hskv facts_rows PRIMARY id"
        assert wire.ask(f"{login}\n{open_}\n300 = 1 1") == "0 1\n0 1\n0 1 1"

    def test_index_that_could_not_be_opened_is_not_open(self, rd: Ask) -> None:
        assert rd("P 9 hskv missing PRIMARY id\n9 = 1 1") == "1 1 open_table\n2 1 stmtnum"

    def test_failed_open_leaves_the_old_index_under_its_number(self, rd: Ask) -> None:
        assert rd("P 1 hskv missing PRIMARY id\n1 = 1 1") == "1 1 open_table\n0 3 1 10 a"

    def test_error_does_not_stop_the_requests_after_it(self, wr: Ask) -> None:
        replies = wr("1 + 3 6 0 x\n1 + 3 1 0 x\n98 = 1 1\n1 = 1 6 1 0 D\n1 = 1 1")
        assert replies == "0 1\n1 1 121\n2 1 stmtnum\n0 1 1\n0 3 1 10 a"


class TestBytes:
    def test_low_bytes_are_escaped_both_ways(self, dial: Any, rows: None) -> None:
        wire = dial("write")
        wire.ask("P 1 hskv facts_keys PRIMARY k,l")
        low = encode(ALL_BYTES[:16])
        assert low[:4] == b"\x01\x40\x01\x41"
        assert wire.exact(b"1\t+\t2\tlow\t" + low + b"\n") == b"0\t1\n"
        assert wire.exact(b"1\t=\t1\tlow\n") == b"0\t2\tlow\t" + low + b"\n"

    def test_every_byte_survives(self, dial: Any, rows: None, sql: Callable[[str], Any]) -> None:
        wire = dial("write")
        wire.ask("P 1 hskv facts_keys PRIMARY l")
        line = b"1\t=\t1\tabcd\t1\t0\tU\t" + encode(ALL_BYTES) + b"\n"
        assert wire.exact(line) == b"0\t1\t1\n"
        assert sql("SELECT l FROM facts_keys") == ((ALL_BYTES,),)
        assert wire.exact(b"1\t=\t1\tabcd\n") == b"0\t1\t" + encode(ALL_BYTES) + b"\n"

    def test_other_line_separators_stay_raw(self, dial: Any, rows: None) -> None:
        wire = dial("write")
        wire.ask("P 1 hskv facts_keys PRIMARY k,l")
        value = b"\x1c\x1d\x1e\x85\xe2\x80\xa8"
        assert wire.exact(b"1\t+\t2\tsep\t" + value + b"\n") == b"0\t1\n"
        assert wire.exact(b"1\t=\t1\tsep\n") == b"0\t2\tsep\t" + value + b"\n"

    def test_raw_cr_before_lf_is_dropped_and_an_escaped_one_kept(
        self, dial: Any, rows: None
    ) -> None:
        wire = dial("write")
        wire.ask("P 1 hskv facts_keys PRIMARY l")
        update = b"1\t=\t1\tabcd\t1\t0\tU\t"
        assert wire.exact(update + b"x\r\n" + b"1\t=\t1\tabcd\n") == b"0\t1\t1\n0\t1\tx\n"
        assert wire.exact(update + b"x\x01M\n" + b"1\t=\t1\tabcd\n") == b"0\t1\t1\n0\t1\tx\x01M\n"

    def test_names_are_raw_utf8(self, dial: Any) -> None:
        wire = dial("read")
        names = "facts odd`né-.\tPRIMARY\tkey é".encode()
        assert wire.exact(b"P\t1\thskv\t" + names + b"\n1\t=\t1\t1\n") == b"0\t1\n0\t1\n"

    def test_null_empty_and_the_byte_zero_are_three_values(self, dial: Any, rows: None) -> None:
        wire = dial("write")
        wire.ask("P 1 hskv facts_rows PRIMARY v")
        for token in (b"\0", b"", b"\x01@", b"\x01@\x01@"):
            assert wire.exact(b"1\t=\t1\t1\t1\t0\tU\t" + token + b"\n") == b"0\t1\t1\n"
            assert wire.exact(b"1\t=\t1\t1\n") == b"0\t1\t" + token + b"\n"

    def test_values_of_several_megabytes_pass(self, dial: Any, rows: None) -> None:
        wire = dial("write")
        wire.ask("P 1 hskv facts_keys PRIMARY k,l")
        value = encode(ALL_BYTES) * 20_000
        assert wire.exact(b"1\t+\t2\tbig\t" + value + b"\n") == b"0\t1\n"
        assert wire.exact(b"1\t=\t1\tbig\n") == b"0\t2\tbig\t" + value + b"\n"

    def test_requests_are_taken_while_replies_are_unread(self, dial: Any, rows: None) -> None:
        wire = dial("write")
        wire.ask("P 1 hskv facts_keys PRIMARY l")
        value = b"v" * 4000
        wire.exact(b"1\t=\t1\tabcd\t1\t0\tU\t" + value + b"\n")
        find = b"1\t=\t1\tabcd" + b"x" * 1000 + b"\n"
        assert wire.exact(find * 2000) == (b"0\t1\t" + value + b"\n") * 2000

    def test_unterminated_line_is_dropped_when_the_connection_closes(
        self, dial: Any, wr: Ask
    ) -> None:
        wire = dial("write")
        wire.ask("P 1 hskv facts_rows PRIMARY id,n,v")
        wire.sock.sendall(b"1\t+\t3\t6\t60\tf\n1\t+\t3\t7\t70\tg")
        assert wire.replies(1) == b"0\t1\n"
        wire.sock.close()
        assert wr("1 = 1 6\n1 = 1 7") == "0 3 6 60 f\n0 3"


class TestClipping:
    def test_too_long_key_is_cut_and_hits_another_row(self, wr: Ask) -> None:
        assert wr("4 = 1 abcdXYZ") == "0 2 abcd large"
        assert wr("4 + 2 abcdXYZ new") == "1 1 121"
        assert wr("4 = 1 abcdXYZ 1 0 D") == "0 1 1"

    def test_too_long_values_are_cut_to_the_column(
        self, wr: Ask, sql: Callable[[str], Any]
    ) -> None:
        wr("P 9 hskv facts_keys PRIMARY k,b")
        assert wr(f"9 + 2 blob {'x' * 65_536}\n1 + 3 6 0 abcdef") == "0 1\n0 1"
        assert sql("SELECT LENGTH(b) FROM facts_keys WHERE k = 'blob'") == ((65_535,),)
        assert wr("1 = 1 6") == "0 3 6 0 abcd"

    @pytest.mark.parametrize(
        ("given", "stored"),
        [
            (str(2**63), str(2**63 - 1)),
            (str(-(2**63) - 1), str(-(2**63))),
            ("7x", "7"),
            ("x", "0"),
            ("", "0"),
        ],
    )
    def test_integers_are_clipped_and_never_refused(self, wr: Ask, given: str, stored: str) -> None:
        assert wr(f"1 + 3 6 {given} x\n1 = 1 6") == f"0 1\n0 3 6 {stored} x"

    def test_integer_key_takes_what_it_can_of_a_text(self, rd: Ask) -> None:
        assert rd("1 = 1 2x\n1 = 1 02") == "0 3 2 20 b\n0 3 2 20 b"

    def test_update_blanks_the_columns_it_has_no_value_for(self, wr: Ask) -> None:
        assert wr("1 = 1 1 1 0 U 1\n1 = 1 1") == "0 1 1\n0 3 1 0 "

    def test_insert_blanks_the_columns_it_does_not_list_or_fill(self, wr: Ask) -> None:
        assert wr("P 9 hskv facts_rows PRIMARY id,n\n9 + 2 6 60\n1 = 1 6") == (
            "0 1\n0 1\n0 3 6 60 "
        )
        assert wr("1 + 2 7 70\n1 = 1 7") == "0 1\n0 3 7 70 "


class TestLocks:
    @pytest.fixture
    def transaction(self, facts_server: PrivateServer, rows: None) -> Iterator[Any]:
        """A cursor in a transaction that holds row 1 and has changed more than a request can."""
        with pymysql.connect(**facts_server.sql) as connection, connection.cursor() as cursor:
            for row in (1, 3, 4, 5):
                cursor.execute(f"UPDATE facts_rows SET n = n + 1 WHERE id = {row}")
            yield cursor

    def test_locked_row_is_146_and_the_rest_of_the_packet_stands(
        self, wr: Ask, rd: Ask, transaction: Any
    ) -> None:
        assert rd("1 = 1 1") == "0 3 1 10 a"
        replies = wr("1 + 3 6 0 x\n2 = 1 1 1 0 U 0 x\n1 = 1 2 1 0 D")
        assert replies == "0 1\n1 1 146\n0 1 1"
        assert rd("1 = 1 6\n1 = 1 2") == "0 3 6 0 x\n0 3"

    def test_deadlock_undoes_what_the_packet_was_told_is_done(
        self, dial: Any, rd: Ask, transaction: Any, sql: Callable[[str], Any]
    ) -> None:
        wire = dial("write")
        wire.ask("P 1 hskv facts_rows PRIMARY id,n,v\nP 2 hskv facts_rows PRIMARY n")
        packet = "1 + 3 6 0 x\n2 = 1 2 1 0 U 0\n2 = 1 1 1 0 U 0\n1 + 3 7 0 x\n"
        wire.sock.sendall(packet.replace(" ", "\t").encode())
        waits = "SELECT COUNT(*) FROM information_schema.innodb_lock_waits"
        while sql(waits) == ((0,),):
            sleep(0.01)
        transaction.execute("UPDATE facts_rows SET n = 0 WHERE id = 2")
        assert wire.replies(4) == b"0\t1\n0\t1\t1\n1\t1\t149\n1\t1\t200\n"
        assert rd("1 = 1 6\n1 = 1 2\n1 = 1 7") == "0 3\n0 3 2 20 b\n0 3"

    def test_late_reply_still_arrives(self, dial: Any, transaction: Any) -> None:
        wire = dial("write")
        wire.ask("P 1 hskv facts_rows PRIMARY n")
        wire.sock.settimeout(0.2)
        with pytest.raises(TimeoutError):
            wire.ask("1 = 1 1 1 0 U? 0")
        transaction.connection.commit()
        wire.sock.settimeout(10.0)
        assert wire.replies(1) == b"0\t1\t11\n"

    def test_write_that_was_answered_is_read_on_the_other_port(self, wr: Ask, rd: Ask) -> None:
        for number in range(100):
            assert wr(f"2 = 1 1 1 0 U {number} x") == "0 1 1"
            assert rd("2 = 1 1") == f"0 2 {number} x"


@pytest.fixture(scope="module")
def open_server() -> Iterator[PrivateServer]:
    """A server that asks for no secret and gives up on locks soon."""
    options: dict[str, str | int | None] = {
        "handlersocket_plain_secret": "",
        "handlersocket_plain_secret_wr": "",
        "handlersocket_threads": 1,
        "handlersocket_wrlock_timeout": 1,
        "lock_wait_timeout": 1,
    }
    with PrivateServer(options=options) as server:
        yield server


@pytest.fixture
def run(open_server: PrivateServer) -> Iterator[Callable[[str], Any]]:
    """Runs one SQL statement on `open_server`."""
    with pymysql.connect(**open_server.sql, autocommit=True) as connection:
        yield connection.query


class TestServerWithoutSecret:
    def test_login_is_refused_and_requests_are_served(
        self, dial: Any, open_server: PrivateServer
    ) -> None:
        wire = dial("read", login=False, server=open_server)
        requests = "A 1 any\nP 1 hskv kv PRIMARY kind\n1 = 1 missing\n256 = 1 "
        assert wire.ask(requests) == "3 1 unauth\n0 1\n0 1\n2 1 stmtnum"

    def test_open_index_makes_ddl_wait_until_the_connection_closes(
        self, dial: Any, open_server: PrivateServer, run: Callable[[str], Any]
    ) -> None:
        wire = dial("read", login=False, server=open_server)
        run("CREATE TABLE altered (id INT PRIMARY KEY)")
        assert wire.ask("P 1 hskv altered PRIMARY id") == "0 1"
        with pytest.raises(pymysql.err.OperationalError, match="1205"):
            run("ALTER TABLE altered ADD n INT")
        assert wire.ask("1 = 1 1") == "0 1"
        wire.sock.close()
        run("SET lock_wait_timeout = 10")
        run("ALTER TABLE altered ADD n INT")

    def test_held_write_lock_is_lock_tables(
        self, dial: Any, open_server: PrivateServer, run: Callable[[str], Any]
    ) -> None:
        wire = dial("write", login=False, server=open_server)
        run("SELECT GET_LOCK('handlersocket_wr', 5)")
        requests = "P 1 hskv kv PRIMARY kind\n1 = 1 missing 1 0 D"
        assert wire.ask(requests) == "0 1\n1 1 lock_tables"

    def test_read_only_server_is_lock_tables(
        self, dial: Any, open_server: PrivateServer, run: Callable[[str], Any]
    ) -> None:
        run("SET GLOBAL read_only = 1")
        wire = dial("write", login=False, server=open_server)
        try:
            requests = "P 1 hskv kv PRIMARY kind\n1 = 1 missing 1 0 D"
            assert wire.ask(requests) == "0 1\n1 1 lock_tables"
        finally:
            wire.sock.close()
            run("SET GLOBAL read_only = 0")

    def test_failed_open_on_the_write_port_ends_explicit_ids_for_good(
        self, dial: Any, open_server: PrivateServer, run: Callable[[str], Any]
    ) -> None:
        run("CREATE TABLE numbered (id INT AUTO_INCREMENT PRIMARY KEY)")
        # Until the server stops, that is; read_only and others do it too.
        open_server.stop()
        open_server.start()
        first = dial("write", login=False, server=open_server)
        assert first.ask("P 1 hskv numbered PRIMARY id\n1 + 1 10\n1 + 1 0") == (
            "0 1\n0 1 0\n0 1 11"
        )
        assert first.ask("P 2 hskv missing PRIMARY id\n1 + 1 20") == "1 1 open_table\n1 1 167"
        first.sock.close()
        other = dial("write", login=False, server=open_server)
        assert other.ask("P 1 hskv numbered PRIMARY id\n1 + 1 20\n1 + 1 0") == (
            "0 1\n1 1 167\n0 1 12"
        )
