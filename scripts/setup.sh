#!/bin/sh
# Installs what building and testing need and this machine lacks: on Debian and Ubuntu, as root or
# with sudo. Says what it will do before it does it; silent and fast when nothing is missing.
set -eu

rust_needed=1.90

say() { echo "setup: $*" >&2; }
have() { command -v "$1" >/dev/null 2>&1; }
# Some of these lie in sbin, which an ordinary user's PATH may not name.
have_anywhere() { have "$1" || [ -x "/usr/sbin/$1" ] || [ -x "/sbin/$1" ]; }

has_postgres_server() {
    for initdb in /usr/lib/postgresql/1[3-8]/bin/initdb; do
        [ -x "$initdb" ] && return 0
    done
    return 1
}

packages=
has_postgres_server || packages="$packages postgresql"
have cc || packages="$packages gcc libc6-dev"
have mold || packages="$packages mold"
have make || packages="$packages make"
have_anywhere ip || packages="$packages iproute2"
have psql || packages="$packages postgresql-client"
have_anywhere mkfs.ext4 || packages="$packages e2fsprogs"
have setpriv || packages="$packages util-linux"

# 0: there and new enough; 1: absent; 2: too old.
rust_state() {
    have cargo && have rustc || return 1
    found=$(rustc --version | cut -d' ' -f2)
    lowest=$(printf '%s\n%s\n' "$rust_needed" "$found" | sort -V | head -n 1)
    [ "$lowest" = "$rust_needed" ] || return 2
}

PATH="$HOME/.cargo/bin:$PATH"
rust_missing=
rust_state || rust_missing=yes
if [ -n "$rust_missing" ]; then
    have curl || packages="$packages curl ca-certificates"
fi

[ -z "$packages" ] && [ -z "$rust_missing" ] && exit 0

if [ "$(id -u)" = 0 ]; then
    as_root=
elif have sudo; then
    as_root=sudo
else
    as_root=
    if [ -n "$packages" ]; then
        say "missing:$packages"
        say "neither root nor sudo here: install these, then run the same command again"
        exit 1
    fi
fi

if [ -n "$packages" ]; then
    if ! have apt-get; then
        say "missing:$packages"
        say "this is not Debian or Ubuntu: install the like of these, then run the same command again"
        exit 1
    fi
    say "installing with apt-get:$packages"
    case "$packages" in
    *' postgresql'*)
        # Debian's package makes and starts a cluster of its own, which nobody here asked for.
        if [ ! -e /etc/postgresql-common/createcluster.conf ]; then
            $as_root mkdir -p /etc/postgresql-common
            echo 'create_main_cluster = false' |
                $as_root tee /etc/postgresql-common/createcluster.conf >/dev/null
            say "wrote /etc/postgresql-common/createcluster.conf: no cluster \"main\" is created"
        fi
        ;;
    esac
    $as_root apt-get update -qq
    # confold: our createcluster.conf is there before the package that asks about it.
    # shellcheck disable=SC2086 # a list of words is meant
    $as_root env DEBIAN_FRONTEND=noninteractive \
        apt-get install -y -qq --no-install-recommends -o Dpkg::Options::=--force-confold $packages
fi

if [ -n "$rust_missing" ]; then
    toolchain=$rust_needed
    if have rustup; then
        say "installing the Rust toolchain with rustup"
        rustup toolchain install stable --profile minimal --component rustfmt,clippy
        rustup default stable
    elif apt-cache show rustup >/dev/null 2>&1; then
        say "installing rustup with apt-get, and with it the Rust toolchain"
        $as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq rustup
        rustup toolchain install stable --profile minimal --component rustfmt,clippy
        rustup default stable
    else
        say "installing rustup from https://rustup.rs, and with it the Rust toolchain"
        curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs |
            sh -s -- -y -q --profile minimal --component rustfmt --component clippy
    fi
    if ! rust_state; then
        say "there is still no Rust $toolchain or later: see https://rustup.rs"
        exit 1
    fi
fi
