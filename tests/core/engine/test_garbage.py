from __future__ import annotations

import subprocess
import sys

PROGRAM = """
import gc, weakref
from inarch.engine.garbage import settle

class Node: ...

def cycle():
    node = Node()
    node.self = node
    return weakref.ref(node)

before = cycle()
settle()
assert before() is None, "garbage of the start was kept for ever"
settled = gc.get_freeze_count()
assert settled > 1000, settled
assert len(gc.get_objects()) < settled / 10, "a collection still looks at what is settled"
after = cycle()
gc.collect()
assert after() is None, "garbage that came later is not collected"
"""


def test_a_settled_process_collects_new_garbage_without_looking_at_what_stays() -> None:
    subprocess.run([sys.executable, "-c", PROGRAM], check=True, timeout=60)
