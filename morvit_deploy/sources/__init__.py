"""Checkpoints as people have them: found, recognised, and turned into a `morvit/1` checkpoint, key by key.

`reading` finds the files and `opening` opens them, unpickling no object; `keymap` decides what becomes of each
tensor, `families/` know the names and the arithmetic of one training code each, `conversion` runs them in order.
"""
