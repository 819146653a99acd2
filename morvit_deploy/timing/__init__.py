"""The one loop that times things: parity, warm-up, blocks in turn; its raw samples and what they mean.

`samples`, `arithmetic`, `result` and `loop` import only numpy and `errors`: they also run in emitted projects.
"""
