"""The page reader against SQLite itself."""

from __future__ import annotations

import sqlite3

import numpy as np
import pytest

from superpoint_ros.bags.pages import Pages


@pytest.mark.parametrize("page_size", [512, 4096, 65536])
def test_rows_are_those_that_sqlite_finds(tmp_path, page_size):
    random = np.random.default_rng(0)
    path = tmp_path / "a.db3"
    with sqlite3.connect(path) as connection:
        connection.execute(f"PRAGMA page_size = {page_size}")
        connection.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, a INTEGER, b REAL, c TEXT, d BLOB)")
        for _ in range(300):
            integer = int(random.integers(-(2**62), 2**62)) >> int(random.integers(0, 62))
            text = "äb" * int(random.integers(0, 400))
            blob = random.bytes(int(random.integers(0, 9)) ** 5)
            real = None if integer % 3 == 0 else float(random.normal())
            connection.execute("INSERT INTO t (a, b, c, d) VALUES (?, ?, ?, ?)", (integer, real, text, blob))
        connection.execute("INSERT INTO t (a, b, c, d) VALUES (0, 1.5, '', x'')")
        expected = connection.execute("SELECT * FROM t ORDER BY id").fetchall()
    connection.close()
    pages = Pages(path.read_bytes())
    found = {
        row.rowid: tuple(pages.values(row, 5)) for row in pages.rows() if len(row.types) == 5 and row.types[0] == 0
    }
    # a NULL other than in the first column is None, too
    assert [found[key] for key in sorted(found) if key <= len(expected)] == expected


def test_values_that_go_on_in_a_lost_page_are_none(tmp_path):
    path = tmp_path / "a.db3"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, d BLOB)")
        connection.execute("INSERT INTO t (d) VALUES (?)", (bytes(20_000),))
    connection.close()
    pages = Pages(path.read_bytes()[:-4096])
    (row,) = [row for row in pages.rows() if len(row.types) == 2]
    assert pages.values(row, 2) is None
    assert pages.values(row, 1) == [1]


@pytest.mark.parametrize("seed", range(20))
def test_nonsense_has_rows_or_none_but_raises_nothing(seed):
    random = np.random.default_rng(seed)
    content = bytearray(random.bytes(8 * 4096))
    for page in range(8):
        content[page * 4096] = content[page * 4096 + 100] = 0x0D
        content[page * 4096 + 3] = content[page * 4096 + 103] = 0
    pages = Pages(bytes(content))
    for row in pages.rows():
        pages.values(row, len(row.types))
