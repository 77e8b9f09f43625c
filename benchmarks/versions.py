"""What is measured, and on what machine."""

import os
import platform
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Final

import hskv

ROOT: Final = Path(__file__).parents[1]
PACKAGES: Final = (
    "pymemcache",
    "redis",
    "hiredis",
    "PyMySQL",
    "mysqlclient",
    "dogpile.cache",
    "limits",
)
SERVERS: Final = (("mariadbd", "--version"), ("redis-server", "-v"), ("memcached", "-V"))


def versions() -> dict[str, str]:
    """By name, those of hskv, Python, the packages and servers it is measured beside."""
    found = {name: metadata.version(name) for name in PACKAGES if is_installed(name)}
    path = os.pathsep.join((os.environ["PATH"], "/usr/sbin"))
    for program, argument in SERVERS:
        done = subprocess.run(
            [program, argument], capture_output=True, text=True, env={"PATH": path}, check=False
        )
        found[program] = done.stdout.strip()
    git = ["git", "-C", str(ROOT), "describe", "--always", "--dirty", "--abbrev=10"]
    commit = subprocess.run(git, capture_output=True, text=True, check=False).stdout.strip()
    return {
        "hskv": f"{hskv.__version__}, commit {commit}",
        "codec": hskv.codec_implementation,
        "Python": platform.python_version(),
        "machine": f"{_model()}, {os.cpu_count()} CPUs, Linux {platform.release()}",
        **found,
    }


def is_installed(name: str) -> bool:
    """Whether there is a distribution of this name."""
    try:
        metadata.version(name)
    except metadata.PackageNotFoundError:
        return False
    return True


def _model() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.split(": ")[1] for line in lines if line.startswith("model name")), "?")
