"""The index of a data set: every clip is decoded once, and the results are kept in one file."""
