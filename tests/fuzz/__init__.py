"""Fuzzing of every parser: bytes in, an expected error or a result out, never anything else.

``nouns`` says what a target is, ``sse``, ``configs``, ``toml_files``, … hold the targets, ``mutate`` changes
inputs with regard to their syntax, ``child`` runs one target under libFuzzer (atheris), ``campaign`` all of
them (``python -m tests.fuzz``).  The tests here run the same functions without atheris: over what is kept of
earlier campaigns and over what Hypothesis makes.
"""
