"""What is tested: customers get a table of their own, and orders refer to it. Either all of it happens or nothing."""

import sqlite3
import sys

STEPS = (
    "create table customers (id integer primary key, name text unique)",
    "insert into customers (name) select distinct customer from orders order by customer",
    "alter table orders add column customer_id integer references customers",
    "update orders set customer_id = (select id from customers where name = customer)",
    "drop index by_customer",
    "alter table orders drop column customer",
    "create index by_customer on orders (customer_id, day)",
    "pragma user_version = 1",
)

database = sqlite3.connect("shop.db", isolation_level=None)
try:
    if database.execute("pragma user_version").fetchone() == (1,):
        sys.exit()
    database.execute("begin immediate")
    for step in STEPS:
        database.execute(step)
    database.execute("commit")
except sqlite3.Error as error:
    sys.exit(f"migrate: {error}")
