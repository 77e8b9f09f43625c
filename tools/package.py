"""Builds the distributions and tries them as users would: `make package`.

A wheel and an sdist are built from the files that git has, and looked into. Each way to install
them gets an environment of its own: with a compiler, without one, without speedups, with every
extra. The tests then run against the installed wheel, far from the sources: the unit tests, or
what the arguments (of pytest) say.
"""

import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import venv
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path

ROOT = Path(__file__).parents[1]
DIST = ROOT / "dist"
# What reads the sources of hskv itself.
OF_THE_SOURCES = ("tests/unit/test_layers.py",)
SOURCES = ("hskv", "hskv_fast")
IN_THE_WHEEL = (
    "hskv/py.typed",
    "hskv/cli/main.py",
    "hskv/store/store.py",
    "hskv/integrations/dogpile.py",
    "hskv_fast/py.typed",
    "hskv_fast/_codec.pyi",
    ".dist-info/licenses/LICENSE",
    ".dist-info/entry_points.txt",
)
IN_THE_SDIST = (
    "hskv_fast/_codec.pyx",
    "LICENSE",
    "CHANGELOG.md",
    "Makefile",
    "tools/setup.sh",
    "tests/conftest.py",
    "docs/index.md",
    "examples/demo/__main__.py",
)
NO_COMPILER = {"CC": "/nonexistent/cc", "CXX": "/nonexistent/c++"}
WITHOUT_SPEEDUPS = {"HSKV_WITHOUT_SPEEDUPS": "1"}
WHICH_CODEC = "import hskv; print(hskv.codec_implementation)"
# Of each extra a module that it alone brings.
OF_EVERY_EXTRA = "import click, dogpile.cache, limits, msgpack, pymysql, rich, hskv.cli.main"


class PackageError(Exception):
    """A distribution is not what it has to be."""


def run(*command: str | Path, where: Path = ROOT, **settings: str) -> str:
    """Run a command; what it printed. Raises PackageError with all of it when it fails."""
    environment = {**os.environ, **settings}
    done = subprocess.run(
        [str(part) for part in command],
        cwd=where,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=900,
        check=False,
    )
    if done.returncode:
        shown = " ".join(str(part) for part in command)
        raise PackageError(f"{shown} ended with {done.returncode}:\n{done.stdout}")
    return done.stdout


def build(sources: Path) -> tuple[Path, Path]:
    """Build both distributions from a copy of what git has, the wheel out of the sdist."""
    shutil.rmtree(DIST, ignore_errors=True)
    copy_tracked(sources)
    # A wheel without its compiled codec is no wheel to give to others.
    run(sys.executable, "-m", "build", "--outdir", DIST, sources, CIBUILDWHEEL="1")
    run(sys.executable, "-m", "twine", "check", "--strict", *DIST.iterdir())
    (wheel,), (sdist,) = DIST.glob("*.whl"), DIST.glob("*.tar.gz")
    return wheel, sdist


def copy_tracked(to: Path) -> None:
    """Copy the files that git has, as they are in the working tree."""
    for name in run("git", "ls-files", "-z").split("\0"):
        if name and (ROOT / name).exists():
            (to / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, to / name)


def look_into(wheel: Path, sdist: Path) -> None:
    """Check that all is in the distributions, and nothing that does not belong there."""
    with zipfile.ZipFile(wheel) as file:
        names = file.namelist()
    _need(wheel, names, (*IN_THE_WHEEL, ".so"))
    foreign = [name for name in names if not name.startswith(("hskv/", "hskv_fast/", "hskv-"))]
    foreign += [name for name in names if name.endswith((".c", ".pyx"))]
    if foreign:
        raise PackageError(f"{wheel.name} has files that do not belong there: {foreign}")
    with tarfile.open(sdist) as archive:
        _need(sdist, archive.getnames(), IN_THE_SDIST)


def _need(distribution: Path, names: Iterable[str], wanted: Iterable[str]) -> None:
    missing = [end for end in wanted if not any(name.endswith(end) for name in names)]
    if missing:
        raise PackageError(f"{distribution.name} lacks {', '.join(missing)}")


def environment(directory: Path, *requirements: str | Path, **settings: str) -> Path:
    """A new virtual environment with something installed; its Python."""
    venv.create(directory, with_pip=True)
    python = directory / "bin" / "python"
    run(python, "-m", "pip", "install", "--quiet", *requirements, where=directory, **settings)
    return python


def expect(python: Path, code: str, said: str) -> None:
    """Run a line in an environment, warnings being errors; check what it prints."""
    answer = run(python, "-P", "-W", "error", "-c", code, where=python.parent).strip()
    if answer != said:
        raise PackageError(f"{code!r} printed {answer!r}, not {said!r}")


def try_installs(scratch: Path, wheel: Path, sdist: Path) -> None:
    """Install in every way that the README names."""
    ways: Mapping[str, tuple[Path, dict[str, str], str]] = {
        "the wheel, with nothing else": (wheel, {}, "cython"),
        "the sdist, compiled": (sdist, {}, "cython"),
        "the sdist, no compiler": (sdist, NO_COMPILER, "python"),
        "the sdist, without speedups": (sdist, WITHOUT_SPEEDUPS, "python"),
    }
    for number, (way, (what, settings, codec)) in enumerate(ways.items()):
        python = environment(scratch / f"way{number}", what, **settings)
        expect(python, WHICH_CODEC, codec)
        print(f"  {way}: codec {codec}")
    refuse_half_wheels(scratch, sdist)
    python = environment(scratch / "all", f"{wheel}[all]")
    expect(python, OF_EVERY_EXTRA, "")
    print(f"  the wheel with [all]: {run(python.parent / 'hskv', '--version').strip()}")


def refuse_half_wheels(scratch: Path, sdist: Path) -> None:
    """Where wheels are made, one that lacks the compiled codec must not come about."""
    command = (sys.executable, "-m", "pip", "wheel", "--no-deps", "-w", scratch, sdist)
    try:
        run(*command, where=scratch, CIBUILDWHEEL="1", **NO_COMPILER)
    except PackageError:
        print("  a wheel for others, no compiler: refused")
        return
    raise PackageError("a wheel without its compiled codec was made in silence")


def run_tests(scratch: Path, wheel: Path, arguments: list[str]) -> None:
    """Run tests against the installed wheel, where no source of hskv is in reach."""
    python = environment(scratch / "tests-env", f"{wheel}[test]")
    place = scratch / "tests-place"
    copy_tracked(place)
    for name in SOURCES:
        shutil.rmtree(place / name)
    ignored = [f"--ignore={name}" for name in OF_THE_SOURCES]
    command = [str(python), "-P", "-m", "pytest", "-q", *ignored, *arguments]
    done = subprocess.run(command, cwd=place, check=False, timeout=3600)
    if done.returncode:
        raise PackageError("the tests fail against the installed wheel")


def main(arguments: list[str]) -> int:
    """Do all of it; the exit status."""
    with tempfile.TemporaryDirectory(prefix="hskv-package-") as directory:
        scratch = Path(directory)
        try:
            wheel, sdist = build(scratch / "sources")
            look_into(wheel, sdist)
            print(f"{wheel.name}, {sdist.name}: all is in them; installed:", flush=True)
            try_installs(scratch, wheel, sdist)
            run_tests(scratch, wheel, arguments or ["tests/unit", "-n", "2"])
        except PackageError as error:
            print(error, file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
