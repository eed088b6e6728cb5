#!/bin/sh
# Prints where Patroni's own programs lie, for tests that compare with them: scripts/patroni.sh
# Fetched once from PyPI into a virtual environment, target/patroni. Nothing is installed, save
# Debian's python3-venv where it is missing and we are root.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
cache=${here%/*}/target/patroni
mark=$cache/made-of

say() { echo "patroni: $*" >&2; }
give_up() {
    say "$*"
    exit 1
}

if [ -x "$cache/bin/patronictl" ] && cmp -s "$mark" "$here/patroni.pins"; then
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

say "fetching Patroni into target/patroni"
rm -rf "$cache"
mkdir -p "$cache"
"$python" -m venv "$cache"
"$cache/bin/pip" install --quiet --disable-pip-version-check \
    --requirement "$here/patroni.pins" >&2 ||
    give_up "PyPI can't be reached, or has nothing for $("$python" --version)"
chmod -R a+rX "$cache"
"$cache/bin/patronictl" version >&2 || give_up "Patroni was fetched, but does not run here"
cp "$here/patroni.pins" "$mark"
echo "$cache/bin"
