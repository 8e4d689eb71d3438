"""All targets by name."""

from __future__ import annotations

from tests.fuzz import configs, engines, folders, imports, toml_files, wire
from tests.fuzz.nouns import Target

ROOMS = (wire, configs, toml_files, engines, imports, folders)
TARGETS: dict[str, Target] = {each.name: each for room in ROOMS for each in room.TARGETS}
