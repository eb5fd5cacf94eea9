"""The sections of `scripts/bench_gpu.py`.

`harness` has the shared parts, `work` counts operations and bytes. The sections are in `device`
(limits of the device), `checks` (correctness), `speed` and `inside` (training speed and where time
is spent) and `program` (`nmt train`). `kernel_checks` also runs on its own.
"""
