"""The conversation, by Python's psycopg 3."""

import sys
import threading

import psycopg

name = sys.argv[1]


def say(what, text):
    print(f"{what}: {text}", flush=True)


def refused(run):
    """Runs what must fail, and returns its error."""
    try:
        run()
    except psycopg.Error as e:
        return e
    raise SystemExit("it was not refused")


def fault(e):
    return f"{e.sqlstate}; {e.diag.message_detail}; {e.diag.message_hint}"


with psycopg.connect(autocommit=True) as c:  # everything is in the environment
    one = c.execute("select id, name, email from customers order by id").fetchone()
    say("masked", " ".join(str(v) for v in one))
    one = c.execute("select id, name, note from customers where id = %s and name = %s", (2, "Bob")).fetchone()
    say("parameters", f"{one[0]} {one[1]} {'null' if one[2] is None else one[2]}")
    names = [c.execute("select name from customers where id = %s", (i % 2 + 1,), prepare=True).fetchone()[0] for i in range(8)]
    say("prepared", " ".join(names))
    price, paid, day, items, doc = c.execute("select price, paid, day, list, doc from kinds").fetchone()
    binary = c.cursor(binary=True).execute("select price, paid, day, list, doc from kinds").fetchone()
    assert binary == (price, paid, day, items, doc), binary
    say("kinds", f"{price} {str(paid).lower()} {day} {','.join(map(str, items))} {doc['a'][0]}")
    say("refused", fault(refused(lambda: c.execute("drop table customers"))))
    say("usable", c.execute("select 1").fetchone()[0])
    say("unbounded", fault(refused(lambda: c.execute("delete from customers"))))

    codes = []
    try:
        with c.transaction():
            c.execute("insert into written values (%s, 99)", (name,))
            codes.append(refused(lambda: c.execute("drop table written")).sqlstate)
            c.execute("select 1")
    except psycopg.Error as e:
        codes.append(e.sqlstate)
    count = lambda: c.execute("select count(*) from written where client = %s", (name,)).fetchone()[0]
    say("transaction", f"{codes[0]} {codes[1]} {count()}")
    c.cursor().executemany("insert into written values (%s, %s)", [(name, i) for i in range(3)])
    c.execute("delete from written where client = %s and n = %s", (name, 0))
    say("written", count())

    with c.cursor().copy("copy (select id, name from customers order by id) to stdout") as copy:
        say("copy out", ", ".join(" ".join(row) for row in copy.rows()))
    with c.cursor() as cur:
        with cur.copy("copy written (client, n) from stdin") as copy:
            for n in (10, 11, 12):
                copy.write_row((name, n))
        say("copy in", cur.rowcount)

    def copy_away():
        with c.cursor().copy("copy (delete from written returning n) to stdout") as copy:
            list(copy.rows())

    say("copy refused", fault(refused(copy_away)))

    threading.Timer(0.5, c.cancel).start()
    say("cancelled", refused(lambda: c.execute("select pg_sleep(30)")).sqlstate)
    say("end", c.execute("select 1").fetchone()[0])
