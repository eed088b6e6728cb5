#!/bin/sh
# Prints where the modules are that the tests' client in JavaScript needs: scripts/node.sh
# Fetched once from npm into target/node. Node itself is Debian's, where it is missing and we are
# root.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
wanted=${here%/*}/crates/e2e/clients/package.json
cache=${here%/*}/target/node
mark=$cache/made-of

say() { echo "node: $*" >&2; }
give_up() {
    say "$*"
    exit 1
}

if cmp -s "$mark" "$wanted"; then
    echo "$cache/node_modules"
    exit 0
fi

if ! command -v node >/dev/null 2>&1 || ! command -v npm >/dev/null 2>&1; then
    [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null || give_up "missing: nodejs npm"
    say "installing with apt-get: nodejs npm"
    { apt-get update -qq && DEBIAN_FRONTEND=noninteractive \
        apt-get install -y -qq --no-install-recommends nodejs npm; } >&2
fi

say "fetching into target/node"
rm -rf "$cache"
mkdir -p "$cache"
cp "$wanted" "$cache/package.json"
(cd "$cache" && npm install --silent --no-audit --no-fund --ignore-scripts) >&2 ||
    give_up "npm can't be reached, or does not have it"
chmod -R a+rX "$cache"
cp "$wanted" "$mark"
echo "$cache/node_modules"
