"""What hskv relies on in finding and changing rows: order, IN, filters, arithmetic."""

from collections.abc import Callable
from typing import Any

import pytest

Ask = Callable[[str], str]

MAX = 2**63 - 1
MIN = -(2**63)


def numbers(reply: str) -> str:
    """The first of three columns in each row of a reply."""
    code, columns, *values = reply.split(" ")
    assert (code, columns) == ("0", "3"), reply
    return " ".join(values[::3])


class TestFind:
    @pytest.mark.parametrize(
        ("request_", "found"),
        [
            ("= 1 3 9 0", "3"),
            (">= 1 3 9 0", "3 4 5"),
            ("> 1 3 9 0", "4 5"),
            ("<= 1 3 9 0", "3 2 1"),
            ("< 1 3 9 0", "2 1"),
            (">= 1 2 2 1", "3 4"),
            (">= 1 2", "2"),
            (">= 1 2 0 0", "2"),
            (">= 1 2  ", "2"),
            (f">= 1 2 {2**32} 0", "2"),
            (f">= 1 2 {2**32 - 1} 0", "2 3 4 5"),
            (f">= 1 2 {2**32 - 1} 1", ""),
        ],
    )
    def test_rows_come_in_index_order_up_to_a_limit(
        self, rd: Ask, request_: str, found: str
    ) -> None:
        assert numbers(rd(f"1 {request_}")) == found

    @pytest.mark.parametrize(
        ("request_", "reply"),
        [
            ("6 = 1 1 9 0", "0 2 1 1 1 2"),
            ("6 = 2 1 2 9 0", "0 2 1 2"),
            ("6 >= 1 2 9 0", "0 2 2 1 3 3"),
            ("6 > 1 1 9 0", "0 2 2 1 3 3"),
            ("6 = 2 0 1 9 0 @ 0 2 3 2", "0 2 2 1"),
            ("6 = 2 1 0 9 0 @ 1 2 2 1", "0 2 1 2 1 1"),
            ("3 > 1 30 9 0", "0 2 4 40 5 50"),
        ],
    )
    def test_index_of_several_parts_or_of_its_own(self, rd: Ask, request_: str, reply: str) -> None:
        assert rd(request_) == reply

    def test_column_may_be_named_twice(self, rd: Ask) -> None:
        assert rd("P 9 hskv facts_rows PRIMARY n,id,n\n9 = 1 1") == "0 1\n0 3 10 1 10"

    def test_reserved_keys_sort_before_all_others(self, dial: Any, rows: None) -> None:
        wire = dial("write")
        wire.ask("P 1 hskv facts_keys PRIMARY k")
        for key in (b"\x01A", b"\x01@z", b"\x01@", b"\xff"):
            wire.exact(b"1\t+\t1\t" + key + b"\n")
        every = b"\x01@\t\x01@z\t\x01A\tabcd\t\xff"
        assert wire.exact(b"1\t>=\t1\t\t9\t0\n") == b"0\t1\t" + every + b"\n"
        assert wire.exact(b"1\t>=\t1\t\x01A\t9\t0\n") == b"0\t1\t\x01A\tabcd\t\xff\n"

    def test_byte_keys_differ_by_case_and_trailing_spaces(self, dial: Any, rows: None) -> None:
        wire = dial("write")
        wire.ask("P 1 hskv facts_keys PRIMARY k")
        assert wire.exact(b"1\t+\t1\ta\n1\t+\t1\tA\n1\t+\t1\ta \n") == b"0\t1\n" * 3


class TestIn:
    @pytest.mark.parametrize(
        ("request_", "found"),
        [
            ("9 0 @ 0 3 4 1 3", "4 1 3"),
            ("9 0 @ 0 3 4 99 1", "4 1"),
            ("9 0 @ 0 3 2 2 2", "2 2 2"),
            ("2 0 @ 0 3 4 1 3", "4 1"),
            ("0 0 @ 0 3 4 1 3", "4"),
            ("9 1 @ 0 3 4 1 3", "1 3"),
            ("9 0 @ 0 3 4 1 3 F > 1 10", "4 3"),
            ("9 0 @ 0 3 4 1 3 W > 1 10", "4"),
        ],
    )
    def test_values_are_looked_up_in_turn(self, rd: Ask, request_: str, found: str) -> None:
        assert numbers(rd(f"1 = 1  {request_}")) == found

    def test_one_row_is_found_for_each_value(self, rd: Ask) -> None:
        assert rd("6 = 1  9 0 @ 0 2 1 2") == "0 2 1 1 2 1"

    def test_list_behind_a_filter_is_taken_for_a_change(self, rd: Ask, wr: Ask) -> None:
        assert wr("1 = 1  9 0 F > 1 10 @ 0 1 4") == "2 1 modop"
        assert rd("1 = 1  9 0 F > 1 10 @ 0 1 4") == "2 1 readonly"

    def test_a_thousand_values_go_in_one_request(self, rd: Ask) -> None:
        values = " ".join(str(value) for value in range(5, 1005))
        assert numbers(rd(f"1 = 1  1000 0 @ 0 1000 {values}")) == "5"

    def test_changes_count_all_rows(self, wr: Ask) -> None:
        assert wr("1 = 1  9 0 @ 0 3 1 99 2 F > 1 10 D") == "0 1 1"
        assert wr("2 = 1  9 0 @ 0 3 1 99 3 U 0 x") == "0 1 2"


class TestFilters:
    @pytest.mark.parametrize(
        ("filters", "found"),
        [
            ("F = 1 30", "3"),
            ("F != 1 30", "1 2 4 5"),
            ("F > 1 9", "1 2 3 4 5"),
            ("F > 1 30", "4 5"),
            ("F >= 1 30", "3 4 5"),
            ("F < 1 30", "1 2"),
            ("F <= 1 30", "1 2 3"),
            ("W < 1 30", "1 2"),
            ("W > 1 10", ""),
            ("F > 1 10 F < 1 40", "2 3"),
            ("W <= 1 40 F > 1 10", "2 3 4"),
            ("F > 1 10 W < 1 40", "2 3"),
            ("W > 1 10 F > 1 10", ""),
            ("F = 2 \0", "3"),
            ("F != 2 \0", "1 2 4 5"),
            ("F < 2 b", "1 3 4"),
            ("F = 2 ", "4"),
            ("F = 2 A", ""),
            ("F <> 1 30", "1 2 3 4 5"),
            ("F like 1 30", "1 2 3 4 5"),
            ("F ~ 1 30", ""),
        ],
    )
    def test_filters_choose_rows(self, rd: Ask, filters: str, found: str) -> None:
        assert numbers(rd(f"1 >= 1 1 9 0 {filters}")) == found

    def test_limit_and_offset_count_rows_that_pass(self, rd: Ask) -> None:
        assert numbers(rd("1 >= 1 1 2 1 F != 1 20")) == "3 4"

    def test_operand_is_clipped_to_the_column(self, wr: Ask) -> None:
        assert wr(f"1 + 3 6 {MAX} abcd") == "0 1"
        assert numbers(wr(f"1 = 1 6 1 0 F >= 1 {MAX + 1}")) == "6"
        assert numbers(wr(f"1 = 1 6 1 0 F <= 1 {MIN - 1}")) == ""
        assert numbers(wr("1 = 1 6 1 0 F = 2 abcdXYZ")) == "6"
        assert wr("P 9 hskv facts_ints PRIMARY t t\n9 = 1 1 1 0 U 127") == "0 1\n0 1 1"
        assert wr("9 = 1 1 1 0 F = 0 999") == "0 1 127"

    def test_unknown_operator_lets_a_delete_take_every_row(self, wr: Ask) -> None:
        assert wr("1 >= 1 1 9 0 F <> 1 10 D") == "0 1 5"

    def test_key_column_may_end_a_scan(self, rd: Ask) -> None:
        assert rd("4 >= 1 abc 9 0 W < 1 abd\n4 >= 1 abc 9 0 W < 1 abca") == ("0 2 abcd large\n0 2")


class TestChanges:
    def test_update_with_a_filter_compares_and_sets(self, wr: Ask) -> None:
        swap = "2 = 1 1 1 0 F = 0 10 U 11 new"
        assert wr(f"{swap}\n{swap}\n2 = 1 1") == "0 1 1\n0 1 0\n0 2 11 new"
        assert wr("2 = 1 99 1 0 F = 0 10 U 11 new") == "0 1 0"

    def test_delete_of_a_range_answers_its_rows(self, wr: Ask) -> None:
        assert numbers(wr("1 >= 1 2 2 0 D?")) == "2 3"
        assert numbers(wr("1 > 1 3 9 0 F != 1 40 D?")) == "5"
        assert numbers(wr("1 >= 1 0 9 0")) == "1 4"

    def test_delete_stops_where_the_scan_does(self, wr: Ask) -> None:
        assert wr("1 >= 1 1 9 0 W <= 1 20 D") == "0 1 2"
        assert wr("3 <= 1 40 9 0 D") == "0 1 2"
        assert numbers(wr("1 >= 1 0 9 0")) == "5"

    def test_delete_and_insert_of_a_key_in_one_packet(self, wr: Ask) -> None:
        packet = "1 = 1 1 1 0 D\n1 + 3 1 7 new\n1 = 1 1"
        assert wr(packet) == "0 1 1\n0 1\n0 3 1 7 new"

    def test_insert_loses_and_the_update_behind_it_wins(self, wr: Ask) -> None:
        packet = "1 + 3 1 7 new\n1 = 1 1 1 0 F <= 1 10 U 1 7 new\n1 = 1 1"
        assert wr(packet) == "1 1 121\n0 1 1\n0 3 1 7 new"

    def test_duplicate_in_another_unique_index_has_the_same_number(self, wr: Ask) -> None:
        assert wr("P 9 hskv facts_unique PRIMARY id,u") == "0 1"
        assert wr("9 + 2 2 1") == "1 1 121"

    def test_null_leaves_a_not_null_column_as_it_was(self, wr: Ask) -> None:
        assert wr("2 = 1 1 1 0 U \0 \0\n2 = 1 1") == "0 1 1\n0 2 10 \0"

    def test_range_update_that_fails_stays_half_done(self, wr: Ask) -> None:
        assert wr("P 9 hskv facts_rows PRIMARY id") == "0 1"
        assert wr("9 <= 1 5 2 0 U 6") == "1 1 121"
        assert numbers(wr("1 >= 1 0 9 0")) == "1 2 3 4 6"


class TestArithmetic:
    @pytest.mark.parametrize(
        ("before", "change", "count", "after"),
        [
            (10, "+ 5", 1, 15),
            (10, "+ -5", 1, 5),
            (10, "+ -11", 1, -1),
            (10, "- 10", 1, 0),
            (10, "- -5", 1, 15),
            (10, "- 11", 0, 10),
            (-3, "- -5", 0, -3),
            (0, "- 5", 1, -5),
            (MAX, "+ 1", 1, MIN),
            (MIN, "+ -1", 1, MAX),
            (MIN, "- 1", 0, MIN),
            (0, f"+ {MAX}", 1, MAX),
            (0, f"+ {MIN}", 1, MIN),
            (MAX, f"+ {MIN}", 1, -1),
            (10, "+ x", 1, 10),
            (10, "+ ", 1, 10),
            (10, "+ \0", 1, 10),
        ],
    )
    def test_signed_number(
        self,
        wr: Ask,
        sql: Callable[[str], Any],
        before: int,
        change: str,
        count: int,
        after: int,
    ) -> None:
        sql(f"UPDATE facts_rows SET n = {before} WHERE id = 1")
        assert wr(f"2 = 1 1 1 0 {change} 0") == f"0 1 {count}"
        assert sql("SELECT n FROM facts_rows WHERE id = 1") == ((after,),)

    def test_question_mark_answers_the_numbers_before_of_several_columns(self, wr: Ask) -> None:
        assert wr("7 = 1 1 1 0 +? 5 -7 0") == "0 3 100 2147483647 abc"
        assert wr("7 = 1 1 1 0 +? 200 8 0") == "0 3 105 2147483640 0"
        assert wr("7 = 1 1") == "0 3 127 2147483647 0"

    def test_refused_subtraction_looks_like_any_other_with_a_question_mark(self, wr: Ask) -> None:
        assert wr("2 = 1 1 1 0 -? 11 0\n2 = 1 1") == "0 2 10 a\n0 2 10 a"

    def test_filter_bounds_an_increment(self, wr: Ask) -> None:
        bounded = "2 = 1 1 1 0 F <= 0 10 +? 5 0"
        assert wr(f"{bounded}\n{bounded}") == "0 2 10 a\n0 2"

    def test_null_is_counted_and_stays_null(self, wr: Ask) -> None:
        assert wr("P 8 hskv facts_wide PRIMARY id,c1\nP 9 hskv facts_wide PRIMARY c1") == "0 1\n0 1"
        assert wr("8 + 2 1 \0\n9 = 1 1 1 0 + 5\n9 = 1 1") == "0 1\n0 1 1\n0 1 \0"

    def test_missing_operand_adds_zero_and_makes_text_a_number(self, wr: Ask) -> None:
        assert wr("7 = 1 1 1 0 + 1\n7 = 1 1") == "0 1 1\n0 3 101 2147483647 0"
