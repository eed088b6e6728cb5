"""What every client does, whatever its driver: plain use in each mode of the proxy, and then a life
through failovers, in which it notes what it was told of each row that it wrote.

It prints a line of JSON when plain use is done, and another one at its end, which comes when there
is a file `over`.
"""

import json
import os
import threading
import time

HOST = os.environ["PGHOST"]
PASSWORD = os.environ["PGPASSWORD"]
MODES = {"session": 6432, "transaction": 6433}
PAUSE = 0.005  # seconds between two rows
WAYS = ("alone", "transaction", "pipeline")
LARGE = 3_000_000  # bytes of one value


def tell(**what):
    print(json.dumps(what), flush=True)


def equal(found, wanted):
    assert found == wanted, f"{found!r}, not {wanted!r}"


def code_of(error, sqlstate):
    """The SQLSTATE; where a driver shows a FATAL error only as the end of the connection, as libpq's newer versions
    and asyncpg do in the middle of some requests, with PostgreSQL too: the one that says that nothing is known."""
    text = str(error)
    if sqlstate is None and "connection" in text and "closed" in text:
        return "08007"
    return sqlstate


def raises(code, driver, work):
    """The work must fail with this SQLSTATE."""
    try:
        work()
    except driver.Error as error:
        equal(driver.code(error), code)
        return
    raise AssertionError(f"no error {code}")


def later(work, seconds):
    """Does it in another thread, when the main one is at something else."""
    timer = threading.Timer(seconds, work)
    timer.start()
    return timer


class Life:
    """In one mode: a session that idles, and one that writes."""

    def __init__(self, driver, name, mode):
        self.driver, self.name, self.mode = driver, name, mode
        self.acknowledged, self.refused, self.unknown = [], [], []
        self.idle = driver.connect(MODES[mode])
        self.idle.execute("SET app.user_id = '7'")
        self.idle.execute("SET TimeZone = 'Asia/Tokyo'")
        self.session = driver.connect(MODES[mode])

    def write(self, n):
        try:
            self.session.write(WAYS[n % len(WAYS)], self.name, self.mode, n)
            self.acknowledged.append(n)
        except self.driver.Error as error:
            code = self.driver.code(error)
            if code == "40001":
                self.refused.append(n)
                # The session goes on, and can be tidied up in it.
                self.session.rollback()
            elif code == "08007":
                self.unknown.append(n)
                self.session = self.driver.connect(MODES[self.mode])
            else:
                raise

    def end(self):
        equal(self.idle.one("SELECT current_setting('app.user_id')"), "7")
        equal(self.idle.one("SELECT current_setting('TimeZone')"), "Asia/Tokyo")
        return {
            "acknowledged": self.acknowledged,
            "refused": self.refused,
            "unknown": self.unknown,
        }


def run(driver, name):
    for mode, port in MODES.items():
        driver.plain(mode, port)
    lives = [Life(driver, name, mode) for mode in MODES]
    tell(plain=True)
    n = 0
    while not os.path.exists("over"):
        for life in lives:
            life.write(n)
        n += 1
        time.sleep(PAUSE)
    tell(**{life.mode: life.end() for life in lives})
