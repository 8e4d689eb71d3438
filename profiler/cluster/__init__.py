"""Machines that are joined by Ray: reaching them, and what they are.  The only rooms that import Ray are this
one and ``sweep/remote*``, inside functions."""
