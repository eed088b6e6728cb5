#!/bin/sh
# Prints where the Python is that the examples' tests run with: scripts/python.sh
# It has what examples/python/requirements.txt says, fetched once from PyPI into target/python.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
exec "$here/venv.sh" python "${here%/*}/examples/python/requirements.txt"
