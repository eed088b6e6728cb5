"""The three ways to the primary, each a function that gives a URI for the next connection.

User, password and database come from PGUSER, PGPASSWORD (or ~/.pgpass) and PGDATABASE.
`target_session_attrs` makes the server itself say that it takes writes, whoever named it.
"""

import http.client
import json
import random
import urllib.request


class NoPrimary(ConnectionError):
    """No node says that it is the primary."""


def by_hosts(hosts):
    """All nodes, `host:port`; the driver tries them in turn.

    In another order each time: asyncpg's timeout is for all hosts together, and a silent one in
    front would use it up at every attempt.
    """
    return lambda: uri(random.sample(hosts, len(hosts)))


def by_haproxy(balancer):
    """The port of HAProxy that leads to the primary."""
    return lambda: uri([balancer])


def by_rest(nodes, timeout=1.0):
    """Asks the nodes' REST interfaces, `host:port`, which of them is primary."""
    return lambda: uri([ask(nodes, timeout)])


def ask(nodes, timeout):
    # 200 comes only from the node that takes writes now; 503 from the others is an OSError.
    # A standby's answer names the primary too, but may be older than that primary's end.
    for node in random.sample(nodes, len(nodes)):
        try:
            with urllib.request.urlopen(f"http://{node}/primary", timeout=timeout) as answer:
                primary = json.load(answer)["primary"]
            return f"{primary['host']}:{primary['port']}"
        except (OSError, http.client.HTTPException, ValueError, KeyError):
            continue
    raise NoPrimary(f"none of {', '.join(nodes)} is primary")


def uri(addresses):
    return f"postgresql://{','.join(addresses)}/?target_session_attrs=read-write"
