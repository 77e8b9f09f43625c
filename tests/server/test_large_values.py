"""Values of every size, keys of every byte."""

import hashlib
import os
import subprocess
import sys
from collections.abc import Iterator
from typing import Any, Final

import pytest

import hskv
from hskv import KeyValueStore, exceptions
from hskv.mariadb import PrivateServer

Store = KeyValueStore[str, Any]

MIB: Final = 1 << 20
SIZES: Final = sorted(
    {
        max(size, 1)
        for power in range(22)
        for size in ((1 << power) - 1, 1 << power, (1 << power) + 1)
    }
)

# Reads a value, and says what it was and how much more memory the process has had for it.
READ: Final = """
import hashlib, sys
import hskv

def memory(word):
    with open("/proc/self/status") as status:
        return int(status.read().partition(word)[2].split()[0]) * 1024

with hskv.connect(sys.argv[1], timeout=60) as store:
    store["small"]
    before = memory("VmRSS:")
    value = store["large"]
    print(hashlib.sha256(value).hexdigest(), len(value), memory("VmHWM:") - before)
"""


@pytest.fixture
def patient(hskv_server: PrivateServer) -> Iterator[Store]:
    """A store that waits for large values."""
    with hskv.connect(hskv_server.url, timeout=60) as store:
        store.clear()
        yield store
        store.clear()


class TestValues:
    def test_random_bytes_of_every_size_come_back(self, patient: Store) -> None:
        for size in SIZES:
            value = os.urandom(size)
            patient["a"] = value
            assert patient["a"] == value, size

    def test_they_come_back_from_a_batch_and_from_every_call(self, patient: Store) -> None:
        items = {f"{size:08}": os.urandom(size) for size in SIZES if size < MIB}
        patient.set_many(items)
        assert patient.get_many(items) == items
        assert patient.to_dict() == items
        name, value = max(items.items())
        assert patient.swap(name, value[::-1]) == value
        assert patient.setdefault(name, b"") == value[::-1]
        assert patient.get_versioned(name)[0] == value[::-1]
        assert patient.pop(name) == value[::-1]
        assert patient.popitem() == min(items.items())

    @pytest.mark.parametrize("byte", [0x00, 0x01, 0x09, 0x0A, 0x0F, 0x10, 0x40, 0x7F, 0xFF])
    def test_one_byte_over_and_over_comes_back(self, patient: Store, byte: int) -> None:
        for size in (1, 16_383, 65_535, 65_536, 65_537, 300_000):
            patient["a"] = bytes([byte]) * size
            assert patient["a"] == bytes([byte]) * size

    def test_every_pair_of_bytes_comes_back(self, patient: Store) -> None:
        pairs = b"".join(bytes([first, second]) for first in range(256) for second in range(256))
        for shift in range(2):
            patient["a"] = pairs[shift:]
            assert patient["a"] == pairs[shift:]

    def test_large_text_and_json_come_back(self, patient: Store) -> None:
        text = "né€\U0001f600\x00\t\n" * 100_000
        patient["text"] = text
        patient["json"] = {"text": text, "numbers": list(range(50_000))}
        assert patient["text"] == text
        assert patient["json"] == {"text": text, "numbers": list(range(50_000))}

    @pytest.mark.timeout(180)
    def test_64_mib_come_back_within_four_times_their_memory(
        self, patient: Store, hskv_server: PrivateServer
    ) -> None:
        size = 64 * MIB
        value = os.urandom(size)
        patient["small"], patient["large"] = 1, value
        # maxrss would be that of this process, which was larger.
        done = subprocess.run(
            [sys.executable, "-c", READ, hskv_server.url], capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        digest, length, peak = done.stdout.split()
        assert digest == hashlib.sha256(value).hexdigest()
        assert int(length) == size
        assert int(peak) < 4 * size, f"{int(peak) / size:.2f} times"


# A reserved key begins with NUL.
FIRST: Final = [bytes([byte]) for byte in range(1, 256)]


class TestKeys:
    @pytest.fixture
    def by_bytes(self, hskv_server: PrivateServer) -> Iterator[KeyValueStore[bytes, Any]]:
        with KeyValueStore(hskv_server.url, key_type=bytes) as store:
            store.clear()
            yield store
            store.clear()

    def test_every_byte_begins_stands_in_and_ends_a_key(
        self, by_bytes: KeyValueStore[bytes, Any]
    ) -> None:
        every = [bytes([byte]) for byte in range(256)]
        keys = [*FIRST, *[b"k" + byte for byte in every], *[b"k" + byte + b"k" for byte in every]]
        by_bytes.set_many({key: key for key in keys})
        assert list(by_bytes) == sorted(keys)
        for key in keys:
            assert by_bytes[key] == key
        assert by_bytes.get_many(keys) == {key: key for key in keys}
        assert [by_bytes.popitem()[0] for _ in range(50)] == sorted(keys)[:50]
        assert by_bytes.delete_many(keys) == len(keys) - 50

    def test_each_single_call_takes_every_byte(self, by_bytes: KeyValueStore[bytes, Any]) -> None:
        for key in FIRST:
            assert by_bytes.incr(key) == 1
            assert by_bytes.swap(key, key) == 1
            assert by_bytes.add(key, 0) is False
            value, version = by_bytes.get_versioned(key)
            assert value == key
            assert by_bytes.compare_and_set(key, [1], version)
            assert by_bytes.touch(key, 60)
            assert next(by_bytes.scan(start=key)) == (key, [1])
            assert key in by_bytes
            assert by_bytes.pop(key) == [1]
        assert not by_bytes

    def test_255_bytes_are_the_longest_key(self, by_bytes: KeyValueStore[bytes, Any]) -> None:
        longest = bytes(range(1, 256))
        by_bytes[longest] = 1
        by_bytes[longest[:-1]] = 2
        assert by_bytes.to_dict() == {longest[:-1]: 2, longest: 1}
        for call in (
            by_bytes.get,
            by_bytes.__contains__,
            by_bytes.get_versioned,
            by_bytes.ttl,
            by_bytes.touch,
            by_bytes.incr,
            by_bytes.decr,
            by_bytes.setdefault,
            by_bytes.delete,
            by_bytes.pop,
            lambda key: by_bytes.set(key, 1),
            lambda key: by_bytes.add(key, 1),
            lambda key: by_bytes.replace(key, 1),
            lambda key: by_bytes.swap(key, 1),
            lambda key: by_bytes.compare_and_set(key, 1, 1),
            lambda key: by_bytes.get_many([key]),
            lambda key: by_bytes.set_many({key: 1}),
            lambda key: by_bytes.delete_many([key]),
            lambda key: by_bytes.get_or_set(key, list),
            lambda key: list(by_bytes.scan(start=key)),
        ):
            with pytest.raises(exceptions.KeyTooLongError, match=r"256 .*255"):
                call(longest + b"x")
            for reserved in (b"", b"\x00", b"\x00key"):
                with pytest.raises(ValueError, match="reserved"):
                    call(reserved)
        assert by_bytes.to_dict() == {longest[:-1]: 2, longest: 1}

    def test_a_prefix_counts_and_makes_room_for_any_key(
        self, by_bytes: KeyValueStore[bytes, Any]
    ) -> None:
        space = by_bytes.namespace(b"\x01\xff:")
        keys = [b"", b"\x00", b"\x00\x00L", b"x" * 252]
        space.set_many({key: key for key in keys})
        assert space.to_dict() == {key: key for key in sorted(keys)}
        with pytest.raises(exceptions.KeyTooLongError, match="prefix"):
            space[b"x" * 253] = 1

    def test_text_of_every_plane_is_a_key(self, patient: Store) -> None:
        points = [*range(1, 0x300), 0x7FF, 0x800, 0xD7FF, 0xE000, 0xFFFF, 0x10000, 0x10FFFF]
        keys = [chr(point) for point in points] + ["é", "e\u0301", "\u212b", "\uff21\uff22"]
        patient.set_many({key: key for key in keys})
        assert list(patient) == sorted(set(keys), key=str.encode)
        assert patient.to_dict() == {key: key for key in keys}
        patient["€" * 85] = 1
        with pytest.raises(exceptions.KeyTooLongError, match="256 bytes"):
            patient["€" * 85 + "x"] = 1
        for surrogate in ("\ud800", "a\udfff", "\udc80\ud800"):
            for call in (patient.get, patient.incr, patient.delete, patient.setdefault):
                with pytest.raises(ValueError, match="not valid Unicode"):
                    call(surrogate)
