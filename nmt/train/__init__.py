"""``nmt train``: the loop, its loss, its schedule and its journal."""
