"""The command `hskv`: what an operator does without writing Python. Needs the extra `cli`.

One file for each subject; `commands` has the list of them, and imports only the one that is run.
rich and PyMySQL cost time: they are imported in the functions that need them.
"""
