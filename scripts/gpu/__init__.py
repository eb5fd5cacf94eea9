"""What `scripts/bench.py gpu` measures; `scripts/bench_gpu.py` runs it, section by section.

`bench` is what every section is given, `work` counts what an update must do at the least. The
sections are in `device` (its ceilings), `checks` (is it right), `speed` (how fast are
updates), `inside` (where does their time go) and `program` (`nmt` itself).
"""
