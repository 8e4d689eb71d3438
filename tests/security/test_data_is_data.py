"""What is read, whoever wrote it, executes nothing, and no name in it leads anywhere."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import profiler
from profiler import comparison, plain, store
from profiler.errors import InputError
from profiler.exporting import files
from profiler.importing import Given, run_folders
from profiler.records import read_records
from profiler.report import csv_text, page
from profiler.schema import Model
from profiler.settings import Scenario
from profiler.storage.objects import is_inside
from tests import make

PACKAGE = Path(profiler.__file__).parent
# Readers that run what they read, and doors to a shell.
EXECUTING = {
    "pickle",
    "cPickle",
    "_pickle",
    "cloudpickle",
    "dill",
    "joblib",
    "shelve",
    "marshal",
    "jsonpickle",
}
EXECUTING |= {"yaml", "ruamel", "zipfile", "tarfile", "code", "codeop", "imp", "pty", "commands"}
CALLS = {"eval", "exec", "compile", "__import__", "execfile"}
METHODS = {
    ("os", "system"),
    ("os", "popen"),
    ("torch", "load"),
    ("pd", "read_pickle"),
    ("pandas", "read_pickle"),
    ("tempfile", "mktemp"),
}
XML_READERS = {"parse", "iterparse", "fromstring", "XML", "XMLParser"}
# The supervisor loads profiler/secret.py by its path; nothing else finds modules by name or path.
MAY_LOAD = {"engines/supervise.py": "spec_from_file_location"}
# An archive for a bug report is written; none is unpacked anywhere.
MAY_PACK = {"bundle.py": "zipfile"}
UNPACKING = {"extract", "extractall", "unpack_archive"}


def offences(tree: ast.Module, name: str = "") -> list[str]:
    """What of all that could run foreign data a module uses."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            module = getattr(node, "module", None) or ""
            names = [module] if module else [each.name for each in node.names]
            roots = {each.split(".")[0] for each in names} - {MAY_PACK.get(name)}
            found += [f"import {each}" for each in roots if each in EXECUTING]
        elif isinstance(node, ast.Call):
            found += _of_call(node, name)
    return found


def _of_call(node: ast.Call, name: str) -> list[str]:
    called, options = node.func, {each.arg: each.value for each in node.keywords}
    shell = options.get("shell")
    found = ["shell"] if shell is not None and getattr(shell, "value", True) else []
    if isinstance(called, ast.Name):
        return found + ([called.id] if called.id in CALLS else [])
    if not isinstance(called, ast.Attribute):
        return found
    owner = called.value.id if isinstance(called.value, ast.Name) else ""
    method = called.attr
    found += [f"{owner}.{method}"] if (owner, method) in METHODS or method in UNPACKING else []
    found += [f"{owner}.{method}"] if owner == "ElementTree" and method in XML_READERS else []
    if owner in ("np", "numpy") and method == "load":
        allowed = options.get("allow_pickle")
        found += (
            [] if isinstance(allowed, ast.Constant) and allowed.value is False else ["np.load of pickles"]
        )
    if method in ("spec_from_file_location", "run_path", "run_module", "exec_module", "SourceFileLoader"):
        found += [] if name in MAY_LOAD else [method]
    return found


def test_no_module_reads_by_running():
    modules = {str(file.relative_to(PACKAGE)): file for file in PACKAGE.rglob("*.py")}
    assert len(modules) > 400
    found = {name: offences(ast.parse(file.read_text()), name) for name, file in modules.items()}
    assert {name: each for name, each in found.items() if each} == {}


@pytest.mark.parametrize(
    "code",
    [
        "import pickle",
        "from yaml import safe_load",
        "import tarfile as t",
        "eval('1')",
        "np.load(x)",
        "np.load(x, allow_pickle=True)",
        "torch.load(x)",
        "zipfile.ZipFile(x).extractall()",
        "subprocess.run(x, shell=True)",
        "subprocess.run(x, shell=yes)",
        "os.system(x)",
        "ElementTree.fromstring(x)",
        "importlib.util.spec_from_file_location(x)",
    ],
)
def test_the_search_finds_what_it_looks_for(code):
    assert len(offences(ast.parse(code))) == 1


def test_metadata_of_a_table_is_not_run(tmp_path):
    """pandas and pyarrow keep descriptions of types in a file, which older versions unpickled."""
    window, records = make.steady(0, 0.0, requests=4)
    make.writer(tmp_path, [(window, records)])
    file = tmp_path / "run" / "parts" / "requests-00000.parquet"
    table = pq.read_table(file)
    hostile = {
        b"pandas": b'{"columns": [], "index_columns": ["\\u0080cos\\nsystem"]}',
        b"ARROW:extension:name": b"arrow.py_extension_type",
        b"ARROW:extension:metadata": b"cos\nsystem\n(S'touch x'\ntR.",
    }
    fields = [field.with_metadata(hostile) for field in table.schema]
    pq.write_table(table.cast(pa.schema(fields, metadata=hostile)), file)
    assert len(read_records(str(file))) == 4


# -------------------------------------------------------------------------------------------- imported files


@pytest.mark.parametrize(
    "content",
    [
        b"[" * 200_000,
        b'{"a":' * 200_000,
        b'{"x": 1' + b"0" * 5000 + b"}",
        b"\x80\x04\x95cos\nsystem\n.",
        b"PK\x03\x04" + b"\0" * 64,
        b"--- !!python/object/apply:os.system ['touch x']",
        b'<!DOCTYPE a [<!ENTITY b SYSTEM "file:///etc/passwd">]><a>&b;</a>',
        b"=cmd|' /C calc'!A0,1\n",
    ],
    ids=["lists", "objects", "number", "pickle", "zip", "yaml", "xml", "formula"],
)
def test_a_file_that_is_none_of_results_ends_in_one_line(tmp_path, content):
    (tmp_path / "results.json").write_bytes(content)
    with pytest.raises(InputError) as refused:
        run_folders(tmp_path / "results.json", tmp_path / "out", Given(model="m"))
    assert len(str(refused.value).splitlines()) == 1
    assert len(str(refused.value)) < 600
    assert not (tmp_path / "out").exists()


NAMES = [
    "../../escaped",
    "/etc/escaped",
    "..",
    ".hidden",
    "-rf",
    "a/../../b",
    "a\\..\\b",
    "x" * 3000,
    "\N{CYRILLIC SMALL LETTER A}" * 500,
    "ａ／．．／ｂ",
    "a\N{RIGHT-TO-LEFT MARK}b",
    "con:$(touch x)`touch x`;touch x|&",
    "<script>alert(1)</script>",
    "=HYPERLINK(1)",
    "name\x00nul",
    "two\nlines",
    "\x1b]0;title\x07\x1b[31m",
]


@pytest.mark.parametrize("name", NAMES)
def test_a_name_is_one_part_of_a_path(tmp_path, name):
    part = plain.in_a_path(name)
    assert part == Path(part).name
    assert part[0] not in ".-"
    assert len(part.encode()) <= plain.MAX_IN_A_PATH_BYTES
    (tmp_path / f"{part}-{part}-20260101T000000Z-00000000").mkdir()
    assert len(list(tmp_path.iterdir())) == 1


def test_names_that_command_are_refused_before_anything_is_made(tmp_path):
    """By one process, for each takes time to start; none makes a folder."""
    code = """
import json, sys
from pathlib import Path
from profiler import prepare
from profiler.errors import InputError
for name in json.load(sys.stdin):
    for words in ({"models": [name]}, {"models": ["m"], "overrides": ["name=" + json.dumps(name)]}):
        try:
            asked = prepare.Request(engine="simulated", scenario="smoke", out=Path("out"), **words)
            prepare.prepare(asked)
            print("taken")
        except InputError as refused:
            print("refused", str(refused).isprintable())
"""
    commanding = [name for name in NAMES if plain.visible(name) != name or "\n" in name] + ["\ud800"]
    assert len(commanding) == 5
    done = subprocess.run(
        [sys.executable, "-c", code],
        input=json.dumps([*commanding, "plain"]),
        capture_output=True,
        text=True,
        cwd=tmp_path,
        check=True,
    )
    assert done.stdout.splitlines() == ["refused True"] * 10 + ["taken"] * 2, done.stderr


@pytest.mark.parametrize("name", NAMES)
def test_an_imported_name_makes_a_folder_in_the_results_or_none(tmp_path, name):
    table = tmp_path / "table.json"
    table.write_text(json.dumps([{"model": name, "concurrency": 1, "output_tokens_per_s": 10.0}]))
    out = tmp_path / "below" / "results"
    if not name.isprintable() or len(name) > 200:
        with pytest.raises(InputError) as refused:
            run_folders(table, out, Given())
        assert str(refused.value).isprintable()
        return
    [written] = run_folders(table, out, Given())
    assert written.folder.parent == out
    assert {each.name for each in tmp_path.iterdir()} == {"table.json", "below"}
    assert [each.name for each in (tmp_path / "below").iterdir()] == ["results"]


@pytest.mark.parametrize(
    ("name", "inside"),
    [
        ("run/manifest.json", True),
        ("a..b/c", True),
        ("../x", False),
        ("run/../../x", False),
        ("/etc/passwd", False),
        ("run//x", False),
        ("run/./x", False),
        ("run/x\0y", False),
        ("run\\..\\x", False),
        ("", False),
    ],
)
def test_an_object_of_a_store_stays_below_its_folder(name, inside):
    assert is_inside(name) is inside


# ------------------------------------------------------------------------ what others wrote, as it is shown

COMMANDING = "evil\x1b[2J\x1b]0;pwned\x07\x9b31m\N{RIGHT-TO-LEFT OVERRIDE}gnp"


@pytest.fixture
def theirs(tmp_path):
    """A run folder of somebody who is no friend."""
    window, records = make.steady(0, 0.0)
    evil = Model(name=f"={COMMANDING}|**b**", weights="random", facts=make.FACTS, notes=(COMMANDING,))
    scenario = Scenario(**{**_fields(make.SCENARIO), "name": COMMANDING})
    make.writer(tmp_path, [(window, records)], model=evil, scenario=scenario).seal()
    return tmp_path


def _fields(struct) -> dict:
    return {name: getattr(struct, name) for name in struct.__struct_fields__}


@pytest.mark.parametrize("form", ["table", "json"])
def test_nothing_in_a_run_folder_commands_the_terminal(theirs, form):
    done = _profile("compare", str(theirs), "--format", form, cwd=theirs)
    assert done.returncode == 0, done.stderr
    assert "evil" in done.stdout
    for text in (done.stdout, done.stderr):
        assert plain.visible(text) == text
    if form == "json":
        assert json.loads(done.stdout)[0]["model"].startswith("=evil\x1b")


def test_nor_do_an_error_and_the_name_of_a_file(theirs):
    broken = theirs / f"x{COMMANDING}"
    broken.mkdir()
    (broken / "manifest.json").write_text("{")
    done = _profile("compare", str(broken), cwd=theirs)
    assert done.returncode == 2
    assert plain.visible(done.stderr) == done.stderr
    assert "\\u001b[2J" in done.stderr


def test_an_engine_that_dies_with_escapes_in_its_log(tmp_path):
    (tmp_path / "sitecustomize.py").write_text(
        "import sys\n"
        'if sys.orig_argv[1:3] == ["-m", "profiler.engines.simulated"]:\n'
        f"    sys.exit({'ValueError: ' + COMMANDING!r})\n"
    )
    root = PACKAGE.parent
    words = ("run", "--model", "sim", "--engine", "simulated", "--scenario", "smoke")
    done = _profile(*words, f"--set=engine.env.PYTHONPATH={tmp_path}:{root}", cwd=tmp_path)
    assert done.returncode == 4
    assert "ValueError: evil" in done.stderr
    assert plain.visible(done.stderr) == done.stderr


def test_a_markdown_table_keeps_its_columns(theirs):
    rows = comparison.rows(store.find([theirs]))
    lines = [line for line in page.markdown(rows, store.find([theirs])).splitlines() if line.startswith("|")]
    assert len({line.replace("\\|", "").count("|") for line in lines[:3]}) == 1
    assert not any("**b**" in line for line in lines)


def test_no_cell_is_a_formula(tmp_path):
    """Names may be anybody's; numbers, which may be negative, are ours."""
    texts = ["=1+1", "+1", "-1", "@sum", "\tx", "plain", "a=b", None]
    expected = ["'=1+1", "'+1", "'-1", "'@sum", "'\tx", "plain", "a=b", ""]
    told = csv_text.as_csv([{"a": text, "b": -1.5} for text in texts], ("a", "b")).splitlines()
    assert told == ["a,b", *(f"{text},-1.5" for text in expected)]
    files.csv([pa.table({"a": pa.array(texts, pa.string()), "b": [-1.5] * len(texts)})], tmp_path / "x.csv")
    assert [line.replace('"', "") for line in (tmp_path / "x.csv").read_text().splitlines()] == told


def test_visible_text_says_what_it_hides_and_json_keeps_its_meaning():
    assert plain.visible("a\tb\nc") == "a\tb\nc"
    assert plain.visible("\x1b[0m\x9b\N{RIGHT-TO-LEFT OVERRIDE}") == "\\u001b[0m\\u009b\\u202e"
    text = json.dumps({"a": COMMANDING}, ensure_ascii=False)
    assert json.loads(plain.visible(text)) == {"a": COMMANDING}


def _profile(*words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "profiler", *words]
    return subprocess.run(command, check=False, capture_output=True, text=True, cwd=cwd, timeout=60)


def test_an_interrupted_run_with_links_in_it_is_not_gone_on_with(tmp_path):
    """What is appended to ``engine.log`` would go to the file of somebody else's choice."""
    window, records = make.steady(0, 0.0, requests=4)
    make.writer(tmp_path, [(window, records)]).close()
    [run] = store.find([tmp_path])
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_text("mine")
    (run.folder / "engine.log").symlink_to(elsewhere)
    with pytest.raises(InputError, match=r"engine\.log in it is a link"):
        store.RunWriter.reopen(run)
    (run.folder / "engine.log").unlink()
    store.RunWriter.reopen(run).close()
    assert elsewhere.read_text() == "mine"
