"""dogpile's own suites, in full, on the real server."""

from dogpile.testing.fixtures import (
    _GenericBackendTestSuite,
    _GenericMutexTestSuite,
    _GenericSerializerTestSuite,
)


class TestPlain(_GenericBackendTestSuite):
    backend = "hskv"
    config_args = {"arguments": {"timeout": 5}}  # noqa: RUF012 dogpile's


class TestByItsLongName(_GenericBackendTestSuite):
    backend = "dogpile.cache.hskv"
    config_args = {"arguments": {"hskv_expiration_time": 60, "prefix": "long:"}}  # noqa: RUF012 dogpile's
    # It sleeps for ten seconds, which once is enough: the name makes no other backend.
    test_threaded_get_multi = None


class TestDistributedLock(_GenericBackendTestSuite):
    backend = "hskv"
    config_args = {"arguments": {"distributed_lock": True}}  # noqa: RUF012 dogpile's


class TestMutex(_GenericMutexTestSuite):
    backend = "hskv"
    config_args = {"arguments": {"distributed_lock": True, "lock_sleep": 0.01}}  # noqa: RUF012 dogpile's


class TestSerializers(_GenericSerializerTestSuite, _GenericBackendTestSuite):
    backend = "hskv"
    config_args = {"arguments": {"timeout": 5}}  # noqa: RUF012 dogpile's
