#!/bin/sh
# Runs `standfast demo` in a temporary directory, as an unprivileged user: PostgreSQL refuses root.
# usage: demo.sh PATH-OF-STANDFAST [options of standfast demo]
set -eu
binary=$1
shift
if [ "$(id -u)" != 0 ]; then
    exec "$binary" demo "$@"
fi
# The user may not be able to read the tree that we were built in. The cluster itself lies in a
# directory of its own beside it: the path of a socket may not have more than 107 bytes.
place=$(mktemp -d /tmp/standfast-demo.XXXXXX)
cp "$binary" "$place/standfast"
chown -R postgres: "$place"
chmod 755 "$place" "$place/standfast"
code=0
cd "$place"
setpriv --reuid=postgres --regid=postgres --init-groups \
    env HOME="$place" USER=postgres "$place/standfast" demo "$@" || code=$?
# What --keep leaves running has a copy of the binary of its own.
cd /
rm -rf "$place"
exit "$code"
