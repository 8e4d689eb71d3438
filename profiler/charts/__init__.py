"""Sealed runs → charts: what a picture shows, as data, a Vega-Lite drawing of it, and the same in words."""
