"""Versions: of vLLM, of the results of earlier days, of Python."""
