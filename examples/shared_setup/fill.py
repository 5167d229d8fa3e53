"""Five years of orders: what the tests need and nobody wants to wait for twice."""

import hashlib
import random
import sqlite3

ORDERS = 100_000

random.seed(2026)
database = sqlite3.connect("shop.db")
columns = "id integer primary key, customer text, day integer, cents integer, receipt text"
database.execute(f"create table orders ({columns})")
database.executemany(
    "insert into orders values (?, ?, ?, ?, ?)",
    (
        (number, f"customer-{random.randrange(20_000)}", number // 55, random.randrange(100, 90_000), receipt)
        for number, receipt in (
            (n, hashlib.pbkdf2_hmac("sha256", b"%d" % n, b"shop", 200).hex()) for n in range(ORDERS)
        )
    ),
)
database.execute("create index by_customer on orders (customer, day)")
database.execute("create unique index by_receipt on orders (receipt)")
database.execute("analyze")
database.commit()
