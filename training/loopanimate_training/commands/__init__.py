"""The sub-commands of `loopanimate-train`, one file each, named as typed."""
