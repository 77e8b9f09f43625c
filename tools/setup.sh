#!/bin/sh
# Prepares a machine for hskv: MariaDB with HandlerSocket and a C compiler from the system's
# packages, and a virtual environment in .venv with hskv and its tools. Running it again is quick.
# Arguments are more packages of the system to install, each with a program of the same name, or
# galera-4, which is a library, or chromium-driver, whose program is chromedriver.
set -eu
cd "$(dirname "$0")/.."

venv=${VENV:-.venv}
python=${PYTHON:-python3}

say() { printf '%s\n' "$*" >&2; }

have_mariadb() {
    [ -z "${HSKV_MARIADBD:-}" ] || return 0
    PATH=$PATH:/usr/sbin:/usr/libexec command -v mariadbd >/dev/null 2>&1 &&
        ls /usr/lib/mysql/plugin/handlersocket.so /usr/lib/*/mysql/plugin/handlersocket.so \
            /usr/lib*/mariadb/plugin/handlersocket.so /usr/lib/*/mariadb*/plugin/handlersocket.so \
            2>/dev/null | grep -q .
}

have_galera() { ls /usr/lib/galera/libgalera_smm.so /usr/lib*/galera*/libgalera_smm.so 2>/dev/null | grep -q .; }

# Whether a package that was asked for is there.
have() {
    case $1 in
        galera-4) have_galera ;;
        chromium-driver) command -v chromedriver >/dev/null 2>&1 ;;
        *) PATH=$PATH:/usr/sbin command -v "$1" >/dev/null 2>&1 ;;
    esac
}

have_venv() { "$python" -c 'import ensurepip, venv' >/dev/null 2>&1; }

# For hskv_fast, which hskv can do without.
have_compiler() {
    command -v cc >/dev/null 2>&1 &&
        "$python" -c 'import pathlib, sys, sysconfig
sys.exit(not pathlib.Path(sysconfig.get_path("include"), "Python.h").exists())'
}

missing_packages() {
    have_compiler || echo gcc libc6-dev python3-dev
    have_mariadb || echo mariadb-server
    have_venv || echo python3-venv
    for name in "$@"; do
        have "$name" || echo "$name"
    done
}

install_packages() {
    packages=$*
    install="apt-get install -y --no-install-recommends $packages"
    if ! command -v apt-get >/dev/null 2>&1; then
        say "hskv needs these, by the names they have in Debian: $packages"
        say "Install them with your system's package manager, then run make again."
        exit 1
    fi
    if [ "$(id -u)" = 0 ]; then
        sudo=
    elif command -v sudo >/dev/null 2>&1; then
        sudo=sudo
    else
        say "Missing: $packages. As root, run:"
        say "    apt-get update && $install"
        exit 1
    fi
    say "Installing $packages ..."
    $sudo apt-get update -qq
    $sudo env DEBIAN_FRONTEND=noninteractive $install -qq >/dev/null
}

check_python() {
    "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || {
        say "hskv needs Python 3.11 or later as $python; name another one by PYTHON=..."
        exit 1
    }
}

# The environment is made anew when it broke, or when the interpreter it came from went away.
install_python_packages() {
    stamp=$venv/.hskv-installed
    wanted=$(cat pyproject.toml setup.py tools/setup.sh hskv_fast/*.pyx | cksum)
    if [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$wanted $PWD" ] && "$venv/bin/python" -c '' 2>/dev/null
    then
        return
    fi
    say "Making the virtual environment $venv ..."
    "$python" -m venv --clear "$venv"
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check -e '.[dev]'
    say "The codec in use: $("$venv/bin/python" -c 'import hskv; print(hskv.codec_implementation)')"
    printf '%s' "$wanted $PWD" >"$stamp"
}

# Two at once, of `make` in two shells, would each make the environment under the other's feet.
wait_for_others() {
    command -v flock >/dev/null 2>&1 || return 0
    exec 9<.
    # 1 is that another has it; anything else, that this file system has no such locks.
    flock -n 9 2>/dev/null || [ $? != 1 ] || {
        say "Waiting for another make that installs ..."
        flock -w 900 9 || {
            say "Another make has been installing for 15 minutes; end it, then run make again."
            exit 1
        }
    }
}

check_python
wait_for_others
packages=$(missing_packages "$@" | xargs)
# shellcheck disable=SC2086 # a list of words
# What is installed may start servers, which must not keep the lock.
[ -z "$packages" ] || install_packages $packages 9<&-
install_python_packages 9<&-
