"""The command `hskv`: what an operator does without writing Python. Needs the extra `cli`.

One file for each subject; `main` holds the list of commands, and imports only the one that is
run. Modules of hskv that cost time are imported in the function that needs them.
"""
