"""The doctor on servers that have copies: healthy ones, and one that is written to wrongly."""

from hskv.mariadb import PrivateGalera, PrivateReplication
from hskv.mariadb.doctor import Report, examine
from hskv.transport.sql_address import parse_sql_url, pymysql_logins


def ids(report: Report) -> set[str]:
    return {finding.id for finding in report.findings}


def test_a_primary_with_replicas_is_well(replication: PrivateReplication) -> None:
    report = examine(replication.url)
    assert (report.findings, report.verdict) == ([], "healthy")


def test_a_replica_that_stands_still_is_named(replication: PrivateReplication) -> None:
    (replica, *_) = replication.replicas
    replica.query("STOP SLAVE SQL_THREAD")
    try:
        report = examine(replication.url)
        (finding,) = (one for one in report.findings if one.id == "server-not-read-from")
        assert finding.what == f"{replica.listener}: replication is stopped"
    finally:
        replica.query("START SLAVE SQL_THREAD")


def test_galera_is_well(galera: PrivateGalera) -> None:
    report = examine(galera.url)
    assert (report.findings, report.verdict) == ([], "healthy")


def test_writes_by_handlersocket_in_galera(galera: PrivateGalera) -> None:
    node = galera.nodes[0]
    # A write port would be there if somebody had set it.
    url = node.read_url.replace(node.listener, f"{node.listener},9")
    report = examine(url, pymysql_logins(parse_sql_url(node.sql_url)))
    assert "galera" in ids(report)
    (finding,) = (one for one in report.findings if one.id == "galera")
    (mend,) = finding.mend
    password = node.sql_url.partition("hskv:")[2].partition("@")[0]
    secret, _, sql = mend.line.partition("sql=")
    url = secret.replace("***", node.secret) + "sql=" + sql.replace("***", password)
    report = examine(url)
    assert (report.findings, report.verdict) == ([], "healthy")
