#!/usr/bin/env python3
"""Makes shop.db, the database of the quickstart: an invented shop, the same rows at every run.

    python3 make_shop.py [TARGET]     without TARGET: shop.db beside this script
"""

from __future__ import annotations

import os
import random
import sqlite3
import sys
from datetime import datetime, timedelta, timezone
from pathlib import Path

SEED = 20_261_123
CUSTOMERS = 360
PRODUCTS = 96
ORDERS = 900
# Small pages keep the file small; SQLite's default of 4096 leaves most of the last page of every table empty.
PAGE_SIZE = 1_024

SCHEMA = """
create table customers (
    id      integer primary key,
    name    text not null,
    email   text not null unique,
    city    text not null,
    joined  text not null
);
create table products (
    id      integer primary key,
    name    text not null unique,
    cents   integer not null check (cents > 0),
    stock   integer not null default 0 check (stock >= 0)
);
create table orders (
    id       integer primary key,
    customer integer not null references customers (id),
    placed   text not null,
    state    text not null check (state in ('placed', 'paid', 'sent', 'returned'))
);
create table lines (
    "order"  integer not null references orders (id) on delete cascade,
    product  integer not null references products (id),
    quantity integer not null check (quantity > 0),
    cents    integer not null,
    primary key ("order", product)
) without rowid;
create table movements (
    id      integer primary key,
    product integer not null references products (id),
    change  integer not null,
    reason  text not null
);
create index orders_by_customer on orders (customer, placed);
create index lines_by_product on lines (product);
create view revenue_by_month as
    select substr(o.placed, 1, 7) as month, count(distinct o.id) as orders, sum(l.quantity * l.cents) as cents
    from orders o join lines l on l."order" = o.id
    where o.state in ('paid', 'sent')
    group by month;
create trigger stock_moves after insert on movements begin
    update products set stock = stock + new.change where id = new.product;
end;
"""

FIRST = "Ada Anton Berit Carlos Dana Emil Farah Goran Hanna Ivo Jonna Kofi Lena Milo Nadia Oskar Petra Quinn Rosa Sven Tara Udo Vera Wim Yuna Zoe".split()
LAST = "Abel Brandt Castro Dahl Eriksen Fabre Gruber Haas Ibsen Jansen Keller Lind Moreau Novak Okafor Peters Quist Rossi Santos Tanaka Ulrich Vogel Weber Young Zimmer".split()
CITIES = "Bergen Bremen Delft Gent Graz Jena Leiden Lyon Malmö Namur Porto Turku".split()
WHAT = "kettle lamp mug notebook pan rug scarf tray".split()
HOW = "blue copper felt green linen oak small striped tall white wool woven".split()


def fill(database: sqlite3.Connection) -> None:
    """Inserts every row. One source of chance, so that the order of the draws is part of the data."""
    chance = random.Random(SEED)
    start = datetime(2025, 1, 6, 8, tzinfo=timezone.utc)

    for number in range(1, CUSTOMERS + 1):
        first, last = chance.choice(FIRST), chance.choice(LAST)
        joined = start + timedelta(days=chance.randrange(600))
        mail = f"{first}.{last}{number}@shop.example".lower()
        database.execute(
            "insert into customers values (?, ?, ?, ?, ?)",
            (number, f"{first} {last}", mail, chance.choice(CITIES), joined.date().isoformat()),
        )

    names = [f"{how} {what}" for how in HOW for what in WHAT]
    chance.shuffle(names)
    prices = {number: chance.randrange(390, 18_900, 10) for number in range(1, PRODUCTS + 1)}
    for number, name in zip(prices, names, strict=True):
        database.execute("insert into products values (?, ?, ?, 0)", (number, name, prices[number]))
        database.execute("insert into movements (product, change, reason) values (?, ?, 'delivery')", (number, 400))

    placed = start
    for number in range(1, ORDERS + 1):
        placed += timedelta(minutes=chance.randrange(20, 1_400))
        state = chance.choices(["placed", "paid", "sent", "returned"], [2, 3, 14, 1])[0]
        customer = chance.randint(1, CUSTOMERS)
        stamp = placed.strftime("%Y-%m-%dT%H:%MZ")
        database.execute("insert into orders values (?, ?, ?, ?)", (number, customer, stamp, state))
        for product in sorted(chance.sample(range(1, PRODUCTS + 1), chance.choice([1, 1, 1, 2, 2, 3, 4]))):
            quantity = chance.choice([1, 1, 1, 2, 3])
            row = (number, product, quantity, prices[product])
            database.execute("insert into lines values (?, ?, ?, ?)", row)
            if state == "sent":
                movement = (product, -quantity, f"order {number}")
                database.execute("insert into movements (product, change, reason) values (?, ?, ?)", movement)


def make(target: Path) -> None:
    """Writes the database beside `target` and renames it into place, so that no half-made one is ever there."""
    unfinished = target.with_name(target.name + ".unfinished")
    unfinished.unlink(missing_ok=True)
    database = sqlite3.connect(unfinished)
    try:
        database.execute(f"pragma page_size = {PAGE_SIZE}")
        database.execute("pragma foreign_keys = on")
        database.executescript(SCHEMA)
        with database:
            fill(database)
        database.execute("vacuum")
        if database.execute("pragma integrity_check").fetchall() != [("ok",)]:
            raise SystemExit("the new database does not pass its own integrity check")
    finally:
        database.close()
    os.replace(unfinished, target)


if __name__ == "__main__":
    make(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).with_name("shop.db"))
