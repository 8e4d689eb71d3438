"""The architecture as a test: import ranks, sizes, the clock rule, heavy imports (docs/architecture.md)."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "profiler"
MODULES = sorted(PACKAGE.rglob("*.py"))

# Strictly downward: a module imports only from ranks below its own.  Within a folder the folder's own
# modules may import each other (without cycles); two modules of one rank outside a folder may not.
RANKS = [
    {"settings", "errors", "secret", "client", "checksums", "disk"},
    {"schema", "alarm", "without_pandas", "toml_tables", "plain"},
    {"catalog", "experts", "stats", "samples", "records", "host_facts", "workload", "windows", "procfs"},
    {"slo", "counters", "conditions", "board_memory", "steps", "prices", "spending", "integrity"},
    {"scenario_checks", "budget"},
    {"arch", "quantization", "scenario", "store", "energy", "trust", "neighbours", "nvml"},
    {"weight_sizes", "storage"},
    {"models", "fit", "site", "host", "roofline", "routing", "alike"},
    {"consumption", "steadiness"},
    {"metrics", "levels", "adaptive"},
    {"loadgen", "engines", "telemetry", "search", "memory", "skew", "utilisation", "prefill"},
    {"calibrate", "baselines", "warming", "ceilings", "predict", "routing_pass", "figures", "cluster"},
    {"split", "scores", "tokens", "index"},
    {"cost", "replicas"},
    {"prepare", "comparison", "doctor", "importing"},
    {"bundle", "manifest", "plan", "gate", "frontier", "exporting", "kept_engine"},
    {"subject", "claims", "pace"},
    {"measure", "charts"},
    {"report"},
    {"progress"},
    {"trials", "view", "sweep"},
    {"api"},
    {"cli", "__init__"},
    {"__main__"},
]
MEASURE = {
    "procfs",
    "loadgen",
    "engines",
    "telemetry",
    "host",
    "prepare",
    "measure",
    "progress",
    "doctor",
    "workload",
}
MEASURE |= {"bundle", "cluster", "pace", "sweep", "kept_engine"}
MEASURE |= {"nvml", "baselines", "warming", "manifest", "ceilings", "routing_pass", "subject"}
READ = {"metrics", "cost", "comparison", "stats", "arch", "energy", "report"}
READ |= {
    "routing",
    "split",
    "windows",
    "slo",
    "trust",
    "neighbours",
    "levels",
    "search",
    "memory",
    "board_memory",
}
READ |= {"counters", "budget", "conditions", "site", "consumption", "roofline", "predict", "steps"}
READ |= {"plan", "skew", "utilisation", "prices", "prefill", "alike", "figures", "gate", "scores"}
READ |= {"adaptive", "claims", "replicas", "frontier", "tokens", "importing", "exporting", "index"}
READ |= {"steadiness", "charts"}
# What a plan needs of the measuring half: how long requests are, which nothing is measured for.
PURE = {"workload"}
HEAVY = {
    "torch",
    "transformers",
    "vllm",
    "pandas",
    "pyarrow",
    "scipy",
    "numpy",
    "pynvml",
    "rich",
    "ray",
    "huggingface_hub",
    "ruptures",
    "jinja2",
    "vl_convert",
    "starlette",
    "uvicorn",
}
# Modules that only ever run in a child process of their own.
CHILDREN = {
    "ceilings/child.py",
    "engines/transformers_server.py",
    "engines/simulated.py",
    "engines/vllm_router.py",
    "loadgen/child.py",
    "telemetry/sampler.py",
}


def room(path: Path) -> str:
    """The top-level name a file belongs to: ``loadgen`` for ``profiler/loadgen/client.py``."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def rank(name: str) -> int:
    return next(number for number, names in enumerate(RANKS) if name in names)


def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


def imported(path: Path) -> Iterator[str]:
    """Top-level names of ours that a file imports, anywhere in it, type-checking blocks aside."""
    for node in ast.walk(_without_type_checking(tree(path))):
        if isinstance(node, ast.Import):
            yield from (a.name.split(".")[1] for a in node.names if a.name.startswith("profiler."))
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: absolute imports only"
            if node.module == "profiler":
                yield from (a.name for a in node.names if not a.name.startswith("__"))
            elif node.module and node.module.startswith("profiler."):
                yield node.module.split(".")[1]


def _without_type_checking(module: ast.Module) -> ast.Module:
    class Drop(ast.NodeTransformer):
        def visit_If(self, node: ast.If) -> ast.AST | None:
            return None if "TYPE_CHECKING" in ast.unparse(node.test) else node

    return Drop().visit(module)


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_point_strictly_downward(path):
    here = room(path)
    for name in imported(path):
        if name != here:
            assert rank(name) < rank(here), (
                f"{path.name} (rank {rank(here)}) imports {name} (rank {rank(name)})"
            )


def test_every_module_has_a_rank():
    assert {room(path) for path in MODULES} - {"help"} == set().union(*RANKS)


def test_measuring_and_reading_never_import_each_other():
    for path in MODULES:
        names = set(imported(path))
        if room(path) in READ:
            assert not names & (MEASURE - PURE if room(path) == "plan" else MEASURE), path
        if room(path) in {"loadgen", "engines", "telemetry", "host", "workload"}:
            assert not names & READ, path


def test_no_cycles_inside_a_folder():
    for folder in (p for p in PACKAGE.iterdir() if p.is_dir() and (p / "__init__.py").exists()):
        graph = {path.stem: set(_siblings(path, folder.name)) for path in folder.glob("*.py")}
        graph.pop("__init__", None)
        while graph:
            leaves = {name for name, needs in graph.items() if not needs & graph.keys()}
            assert leaves, f"cycle in {folder.name}: {sorted(graph)}"
            graph = {name: needs - leaves for name, needs in graph.items() if name not in leaves}


def _siblings(path: Path, folder: str) -> Iterator[str]:
    for node in _without_type_checking(tree(path)).body:
        if isinstance(node, ast.ImportFrom) and node.module:
            parts = node.module.split(".")
            if parts[:2] == ["profiler", folder]:
                yield from parts[2:3] or (alias.name for alias in node.names)


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_sizes(path):
    assert len(path.read_text().splitlines()) <= 400
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert (node.end_lineno or 0) - node.lineno < 60, node.name
            if room(path) != "cli":  # a command's parameters are its options
                arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
                assert len([a for a in arguments if a.arg not in ("self", "cls")]) <= 7, node.name


def test_median_function_is_short():
    lengths = sorted(
        (node.end_lineno or 0) - node.lineno + 1
        for path in MODULES
        for node in ast.walk(tree(path))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    )
    assert lengths[len(lengths) // 2] <= 12


def test_commands_have_at_most_twelve_options():
    """Scenario fields are reached with --set; ``run`` has two more, for what its result is judged by
    (--find, --max-failed and, without a parameter of its own, the --slo family)."""
    for node in (each for path in (PACKAGE / "cli").glob("*.py") for each in ast.walk(tree(path))):
        if isinstance(node, ast.FunctionDef):
            options = [each for each in node.args.args if each.arg != "context"]
            assert len(options) <= (14 if node.name == "run" else 12), node.name


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_heavy_packages_are_imported_inside_functions(path):
    if str(path.relative_to(PACKAGE)) in CHILDREN:
        return
    for node in _without_type_checking(tree(path)).body:
        names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
        names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        assert not {name.split(".")[0] for name in names} & HEAVY, f"{path}: {names}"


def test_one_monotonic_clock():
    """The calendar clock is read where a run gets its place in time, and nowhere else."""
    allowed = {"manifest.py", "prepare.py"}
    for path in MODULES:
        text = path.read_text()
        if path.name not in allowed:
            for word in ("time.time(", "time.time_ns(", "datetime.now", "utcnow("):
                assert word not in text, f"{path}: {word}"


@pytest.mark.parametrize(
    "module", ["profiler.cli", "profiler.comparison", "profiler.metrics", "profiler.store"]
)
def test_the_reading_half_imports_nothing_heavy(module):
    code = f"import sys, {module}; print(*(set(sys.modules) & {HEAVY!r}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


# What nothing before the first request of a run may import, beside HEAVY: 5 to 100 ms each.
SLOW = {"asyncio", "ssl", "http.client", "email", "psutil", "importlib.metadata", "difflib", "csv", "json"}
SLOW |= {"tempfile", "random", "statistics", "dataclasses", "argparse", "typer", "click", "pydantic"}


def imported_by(code: str) -> set[str]:
    code += "\nimport sys; print(*sys.modules)"
    return set(
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        ).stdout.split()
    )


def test_a_run_imports_little_before_its_first_request(tmp_path):
    """All that a run against a server that is there does before it asks that.  (``cli`` needs typer, which
    takes some 0.1 s of itself.)"""
    code = [
        "from pathlib import Path",
        "from profiler import host, measure, prepare, progress",
        "host._loads = lambda name: False  # as without a GPU",
        f"request = prepare.Request(models=['m'], url='http://h/v1', out=Path({str(tmp_path)!r}))",
        "prepare.prepare(request, lambda endpoint, timeout_s: endpoint)",
    ]
    found = imported_by("\n".join(code))
    assert "msgspec" in found
    assert not found & (SLOW | HEAVY)


def test_load_and_sampling_processes_import_little_before_their_first_order():
    """The load process needs numpy to plan, and pyarrow after the window."""
    child = imported_by("import profiler.loadgen.child")
    assert not child & (HEAVY | (SLOW - {"asyncio", "ssl"}))  # asyncio imports ssl, whatever we do
    sampler = imported_by("import profiler.telemetry.sampler")
    assert not sampler & (HEAVY | (SLOW - {"dataclasses"}) | {"subprocess"})


def test_tests_are_at_least_as_long_as_the_source():
    def lines(paths):
        return sum(len(path.read_text().splitlines()) for path in paths)

    assert lines((ROOT / "tests").rglob("*.py")) >= 0.6 * lines(MODULES)
