"""Sealed runs as a local page: loopback only, read-only, the components of the report.

folder   what lies in it, and whether that has changed
pages    what is asked of it → documents
app      addresses → pages
server   the app on a port of this machine, until Ctrl-C
"""
