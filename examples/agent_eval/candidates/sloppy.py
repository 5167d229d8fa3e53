"""Replaces text, everywhere."""

from pathlib import Path

for path in Path().rglob("*.*"):
    if path.is_file():
        path.write_text(path.read_text().replace("total", "total_price"))
