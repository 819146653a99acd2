"""Conversion of other libraries' checkpoints to `morvit/1` or `morvit/2`, key by key.

`tensors/reading` finds the files and `tensors/opening` opens them without unpickling objects. `tensors/keymap` maps
each tensor, `families/` hold the names and conventions of one training code each, and `conversion` runs the steps.
"""
