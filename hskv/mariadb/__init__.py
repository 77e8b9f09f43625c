"""MariaDBs of one's own, to try hskv and to test with."""

from .cluster import ClusterError
from .ddl import change_table
from .galera import PrivateGalera
from .programs import ServerStartError
from .replication import PrivateReplication
from .server import PrivateServer

__all__ = [
    "ClusterError",
    "PrivateGalera",
    "PrivateReplication",
    "PrivateServer",
    "ServerStartError",
    "change_table",
]
