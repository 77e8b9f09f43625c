"""Prints the coverage of the last run, and fails where it is below what the project promises.

With the argument `cluster`, of what `make test-cluster` alone runs.
"""

import subprocess
import sys

CLUSTER = ",".join(
    f"hskv/mariadb/{name}.py" for name in ("cluster", "replication", "galera", "ddl")
)
# (files, files left out, per cent of lines and branches)
PROMISES = (
    ("hskv/wire/*,hskv/transport/*,hskv/store/plans.py", "", 100),
    ("hskv/*", CLUSTER, 95),
)
CLUSTER_PROMISES = ((CLUSTER, "", 98),)


def main() -> int:
    """Check each promise; the exit status."""
    failed = 0
    promises = CLUSTER_PROMISES if sys.argv[1:] == ["cluster"] else PROMISES
    for files, without, percent in promises:
        command = [sys.executable, "-m", "coverage", "report", f"--include={files}"]
        command += [f"--omit={without}"] if without else []
        print(f"Coverage of {files}, at least {percent} %:")
        failed |= subprocess.run([*command, f"--fail-under={percent}"], check=False).returncode
    return failed


if __name__ == "__main__":
    sys.exit(main())
