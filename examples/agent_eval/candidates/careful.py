"""Renames names, and only names: by Python's own tokens."""

import io
import tokenize
from pathlib import Path

for path in Path("shop").glob("*.py"):
    source = path.read_text()
    lines = source.splitlines(keepends=True)
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    found = [token.start for token in tokens if token.type == tokenize.NAME and token.string == "total"]
    for row, column in reversed(found):
        line = lines[row - 1]
        lines[row - 1] = line[:column] + "total_price" + line[column + len("total") :]
    if found:
        path.write_text("".join(lines))
