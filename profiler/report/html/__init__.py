"""Documents of charts and tables → one self-contained HTML page."""
