"""Bad days on purpose: every fault in every phase of a run, and what must be true afterwards.

Without words the whole matrix, then the kill test; with words the cells whose names hold one of them.
"""
