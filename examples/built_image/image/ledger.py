#!/usr/bin/env python3
"""Books amounts of money, and adds them up in euros: `ledger book 3 CHF`, `ledger total`."""

import os
import sys
from pathlib import Path

BOOK = Path(os.environ["LEDGER_HOME"], "book")


def rates():
    lines = Path(os.environ["LEDGER_RATES"]).read_text().splitlines()
    return {currency: float(rate) for currency, rate in map(str.split, lines)}


def book(amount, currency):
    if currency not in rates():
        sys.exit(f"ledger: no rate for {currency}")
    with BOOK.open("a") as file:
        file.write(f"{float(amount)} {currency}\n")


def total():
    lines = BOOK.read_text().splitlines() if BOOK.exists() else []
    sys.stdout.write(
        f"{sum(float(amount) / rates()[currency] for amount, currency in map(str.split, lines)):.2f} EUR\n"
    )


{"book": book, "total": total}[sys.argv[1]](*sys.argv[2:])
