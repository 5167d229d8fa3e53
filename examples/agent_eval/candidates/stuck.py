"""Begins well, and then waits for an answer that never comes, with a helper in the background that ignores SIGTERM."""

import subprocess
import time
from pathlib import Path

subprocess.Popen(["sh", "-c", "trap '' TERM; while :; do sleep 1; done"], start_new_session=True)
cart = Path("shop/cart.py")
cart.write_text(cart.read_text().replace("def total(", "def total_price("))
time.sleep(3600)
