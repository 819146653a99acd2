"""The loop behind every measurement: parity, warm-up, alternating blocks; its raw samples and their statistics.

`samples`, `arithmetic`, `result` and `loop` import only numpy and `errors`: they also run in emitted projects.
"""
