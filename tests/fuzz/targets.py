"""All targets by name."""

from __future__ import annotations

from tests.fuzz import configs, toml_files, wire
from tests.fuzz.nouns import Target

TARGETS: dict[str, Target] = {
    each.name: each for each in (*wire.TARGETS, *configs.TARGETS, *toml_files.TARGETS)
}
