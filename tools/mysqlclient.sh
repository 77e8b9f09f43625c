#!/bin/sh
# Installs mysqlclient, which is compiled against MariaDB's client library; without it the benchmark
# goes on. Its one argument is the interpreter.
set -u
"$1" -c 'import MySQLdb' 2>/dev/null && exit 0
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends -qq \
        libmariadb-dev pkg-config gcc libc6-dev >/dev/null
fi
"$1" -m pip install --quiet --disable-pip-version-check mysqlclient ||
    echo "mysqlclient could not be installed: it is left out" >&2
