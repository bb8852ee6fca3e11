"""Delivers one DELETE in seven ways by psycopg 3, and prints for each what came of it: name, SQLSTATE, rows left."""

import sys

import psycopg

TEXT = "delete from s.victim"


def query(c):
    psycopg.ClientCursor(c).execute(TEXT)


def unnamed(c):
    c.execute(TEXT + " where a > %s", (0,), prepare=False)


def named(c):
    c.execute(TEXT + " where a > %s", (0,), prepare=True)


def prepare(c):
    c.execute("prepare d as " + TEXT)
    c.execute("execute d")


def cursor(c):
    with c.cursor(name="d") as d:
        d.execute("select s.wipe()")
        d.fetchall()


def batch(c):
    with c.pipeline():
        c.execute("select 1")
        c.execute(TEXT)
        c.execute("select 2")


def do(c):
    c.execute("do $$ begin " + TEXT + "; end $$")


for way in (query, unnamed, named, prepare, cursor, batch, do):
    with psycopg.connect(sys.argv[1], autocommit=way is not cursor) as c:
        code = "ok"
        try:
            way(c)
        except psycopg.Error as e:
            code = f"{e.sqlstate} {e.diag.message_detail or ''}"
            c.rollback()
        else:
            c.commit()
        left = c.execute("select count(*) from s.victim").fetchone()[0]
        print(f"{way.__name__}|{code}|{left}")
        if left == 0:
            c.execute("insert into s.victim select generate_series(1, 5)")
        c.commit()
