#!/bin/sh
# Installs what building and testing need and this machine lacks: on Debian and Ubuntu, as root or
# with sudo. Says what it will do before it does it; silent and fast when nothing is missing.
set -eu

# As `rust-version` in Cargo.toml.
rust_needed=1.90
# The host that the toolchain itself comes from; https://sh.rustup.rs gives the same script.
rustup_script=https://static.rust-lang.org/rustup/rustup-init.sh

say() { echo "setup: $*" >&2; }
give_up() {
    say "$1"
    say "$2"
    exit 1
}
have() { command -v "$1" >/dev/null 2>&1; }
# Some of these lie in sbin, which an ordinary user's PATH may not name.
have_anywhere() { have "$1" || [ -x "/usr/sbin/$1" ] || [ -x "/sbin/$1" ]; }

has_postgres_server() {
    for initdb in /usr/lib/postgresql/1[3-8]/bin/initdb; do
        [ -x "$initdb" ] && return 0
    done
    return 1
}

# 0: there and new enough; 1: absent or too old.
has_rust() {
    have cargo && have rustc || return 1
    found=$(rustc --version 2>/dev/null | cut -d' ' -f2)
    [ -n "$found" ] || return 1
    [ "$(printf '%s\n%s\n' "$rust_needed" "$found" | sort -V | head -n 1)" = "$rust_needed" ]
}

PATH="$HOME/.cargo/bin:$PATH"

packages=
has_postgres_server || packages="$packages postgresql"
have cc || packages="$packages gcc libc6-dev"
have mold || packages="$packages mold"
have make || packages="$packages make"
have psql || packages="$packages postgresql-client"
have setpriv || packages="$packages util-linux"
have_anywhere ip || packages="$packages iproute2"
have_anywhere mkfs.ext4 || packages="$packages e2fsprogs"
# Tests run Patroni's programs beside ours, from an environment that scripts/patroni.sh makes.
/usr/bin/python3 -c 'import venv, ensurepip' 2>/dev/null || packages="$packages python3-venv"
# And a client in JavaScript, with modules that scripts/node.sh fetches.
have node || packages="$packages nodejs"
have npm || packages="$packages npm"
# Tests run clusters of their own.
have etcd || packages="$packages etcd-server"
have etcdctl || packages="$packages etcd-client"
have_anywhere dnsmasq || packages="$packages dnsmasq-base"
have openssl || packages="$packages openssl"
have_anywhere haproxy || packages="$packages haproxy"
have promtool || packages="$packages prometheus"
rust_missing=
if ! has_rust; then
    rust_missing=yes
    have rustup || have curl || packages="$packages curl"
fi
# Without it neither rustup nor cargo believes any server.
if have apt-get && [ ! -e /etc/ssl/certs/ca-certificates.crt ]; then
    packages="$packages ca-certificates"
fi

install_packages() {
    have apt-get || give_up "missing:$packages" \
        "this is not Debian or Ubuntu: install the like of these, then run the same command again"
    by_hand="ask someone who may to run this, then run the same command again: apt-get install$packages"
    as_root=
    if [ "$(id -u)" != 0 ]; then
        have sudo || give_up "missing:$packages; neither root nor sudo here" "$by_hand"
        as_root=sudo
        say "installing with sudo apt-get:$packages"
        sudo true || give_up "sudo does not let you" "$by_hand"
    else
        say "installing with apt-get:$packages"
    fi
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
        apt-get install -y -qq --no-install-recommends \
        -o Dpkg::Use-Pty=0 -o Dpkg::Options::=--force-confold $packages
    # These packages start services of their own, which nobody here asked for either.
    for service in etcd-server:etcd haproxy:haproxy prometheus:prometheus \
        prometheus:prometheus-node-exporter; do
        case "$packages " in
        *" ${service%%:*} "*)
            if [ -d /run/systemd/system ] && systemctl is-enabled --quiet "${service#*:}" 2>/dev/null; then
                $as_root systemctl disable --quiet --now "${service#*:}.service"
                say "stopped and disabled ${service#*:}.service: only tests start it here"
            fi
            ;;
        esac
    done
}

install_rust() {
    if have rustup; then
        say "installing the stable Rust toolchain with rustup, for this directory"
        rustup toolchain install stable --profile minimal --component rustfmt,clippy
        # Which toolchain is used elsewhere is its owner's matter.
        rustup override set stable
    else
        say "installing rustup and the stable Rust toolchain in $HOME, from $rustup_script"
        script=$(mktemp)
        curl --proto '=https' --tlsv1.2 -sSfL "$rustup_script" -o "$script" ||
            give_up "$rustup_script can't be reached" "install Rust $rust_needed or later, then run the same command again"
        code=0
        sh "$script" -y -q --profile minimal --component rustfmt --component clippy ||
            code=$?
        rm -f "$script"
        [ "$code" = 0 ] || exit "$code"
    fi
    has_rust || give_up "there is still no Rust $rust_needed or later" "see https://rustup.rs"
}

[ -z "$packages" ] || install_packages
[ -z "$rust_missing" ] || install_rust
