"""Bad days on purpose: every fault in every phase of a run, and what must be true afterwards.

python -m tests.harden [WORD…]        the matrix, or the rows and cells whose names hold a word
"""
