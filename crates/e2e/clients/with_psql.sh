#!/bin/sh
# psql: plain use by a script, and rows through failovers, a line each of what it was told of them.
# Words: MODE PORT. It ends when there is a file `over`.
set -eu
mode=$1
export PGUSER=app PGDATABASE=postgres PGPORT="$2" PGCONNECT_TIMEOUT=30
table=copied_${mode}_psql

fail() {
    echo "$*" >&2
    exit 1
}

printed=$(
    psql -XAt -v ON_ERROR_STOP=1 -v FETCH_COUNT=100 2>&1 <<SQL
CREATE TABLE $table (a int, b text);
\\copy $table from program 'seq -f "%g	line" 1 20000'
SELECT count(*), sum(a) FROM $table;
SELECT max(n) FROM (SELECT generate_series(1, 5000) AS n) AS many;
SELECT length(repeat('x', 3000000));
\\set name value
SELECT :'name';
LISTEN news_psql;
NOTIFY news_psql, 'it works';
SELECT 'end';
SQL
)
case $printed in
*'20000|200010000'*5000*3000000*value*'it works'*) ;;
*) fail "psql printed: $printed" ;;
esac
for sslmode in disable prefer require; do
    [ "$(PGSSLMODE=$sslmode psql -XAtc 'SELECT 1')" = 1 ] || fail "sslmode $sslmode"
done
said=$(PGPASSWORD=wrong psql -XAtc 'SELECT 1' 2>&1) && fail "a wrong password is right"
case $said in
*'password authentication failed'*) ;;
*) fail "a wrong password: $said" ;;
esac
said=$(timeout -s INT 1 psql -XAt -v VERBOSITY=sqlstate -c 'SELECT pg_sleep(30)' 2>&1) || true
case $said in
*57014*) ;;
*) fail "a cancel: $said" ;;
esac
echo '{"plain": true}'

n=0
while [ ! -e over ]; do
    # One session for as long as it lives, then the next with later numbers: of the row that the
    # last one did not tell of, nobody knows.
    while [ ! -e over ]; do
        printf '%s\n' "INSERT INTO seats VALUES ('psql', '$mode', $n);" \
            '\if :ERROR' "\\echo failed $n :SQLSTATE" \
            '\else' "\\echo acknowledged $n" '\endif'
        n=$((n + 1))
        sleep 0.02
    done | psql -Xq || true
    n=$((n + 100000))
done
