#!/bin/sh
# Compiles hskv_fast with AddressSanitizer, beside the one that is installed, and fuzzes both.
# Arguments: the interpreter, and how many inputs.
set -eu
cd "$(dirname "$0")/.."
python=$1
inputs=$2
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT

"$python" tools/fuzz_codec.py "$inputs"
CFLAGS="-O1 -g -fsanitize=address -fno-omit-frame-pointer" "$python" -m pip install --quiet \
    --disable-pip-version-check --no-deps --target "$place" .
# Python's own allocator would hide from the sanitizer where an object ends.
LD_PRELOAD=$(cc -print-file-name=libasan.so) ASAN_OPTIONS=detect_leaks=0 PYTHONMALLOC=malloc \
    PYTHONPATH="$place" "$python" tools/fuzz_codec.py "$inputs"
