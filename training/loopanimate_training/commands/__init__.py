"""The commands of `loopanimate-train`, one file each, named as typed: its options, and what it runs.

Heavy imports stay inside the functions, so that `--help` answers at once.
"""
