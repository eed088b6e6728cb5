#!/bin/sh
# Prints where Patroni's own programs lie, for tests that compare with them: scripts/patroni.sh
# Fetched once from PyPI into target/patroni.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
exec "$here/venv.sh" patroni "$here/patroni.pins"
