"""Checkpoints as people have them: found, recognised, and turned into a `morvit/1` checkpoint, key by key.

`reading` opens files and never unpickles objects, `keymap` says what becomes of each tensor, `families/` know the
names and the arithmetic of one training code each, `conversion` runs them in order.
"""
