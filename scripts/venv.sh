#!/bin/sh
# Prints where the programs of a Python environment lie, for tests: scripts/venv.sh NAME REQUIREMENTS
# Fetched once from PyPI into target/NAME. Nothing is installed, save Debian's python3-venv where it
# is missing and we are root.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
name=$1
requirements=$2
cache=${here%/*}/target/$name
mark=$cache/made-of

say() { echo "$name: $*" >&2; }
give_up() {
    say "$*"
    exit 1
}

if cmp -s "$mark" "$requirements"; then
    echo "$cache/bin"
    exit 0
fi

# The machine's own: tests run as another user, to whom a Python below /root is closed.
python=/usr/bin/python3
[ -x "$python" ] || python=$(command -v python3) || python=
if [ -z "$python" ] || ! "$python" -c 'import venv, ensurepip' 2>/dev/null; then
    [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null || give_up "missing: python3-venv"
    say "installing with apt-get: python3-venv"
    { apt-get update -qq && DEBIAN_FRONTEND=noninteractive \
        apt-get install -y -qq --no-install-recommends python3-venv; } >&2
    python=/usr/bin/python3
fi

say "fetching into target/$name"
rm -rf "$cache"
mkdir -p "$cache"
"$python" -m venv "$cache"
"$cache/bin/pip" install --quiet --disable-pip-version-check --requirement "$requirements" >&2 ||
    give_up "PyPI can't be reached, or has nothing for $("$python" --version)"
"$cache/bin/pip" check >&2 || give_up "what was fetched does not fit together"
chmod -R a+rX "$cache"
cp "$requirements" "$mark"
echo "$cache/bin"
