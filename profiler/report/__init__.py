"""Values → text.  Only this package and the command line make text."""
