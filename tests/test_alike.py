"""Runs are of the same thing exactly where every fact that moves a figure is the same."""

from __future__ import annotations

import msgspec
import pytest

from profiler import alike, store
from profiler.host_facts import differences
from profiler.settings import EngineSettings
from tests import make

replace = msgspec.structs.replace


def run(tmp_path, name, **changes):
    return store.load(make.writer(tmp_path, [make.steady(0, 10.0)], run_id=name, **changes).folder)


def test_a_second_run_of_the_same_is_alike(tmp_path):
    one, two = run(tmp_path, "one"), run(tmp_path, "two", group="another", unix_ns=5)
    assert alike.same_engine(one, two)


@pytest.mark.parametrize(
    "host",
    [
        replace(make.HOST, cpu="another"),
        replace(make.HOST, cores=4),
        replace(make.HOST, gpus=(make.GPU,)),
        replace(make.HOST, driver="570.1"),
        replace(make.HOST, packages={"torch": "2.12.0"}),
        replace(make.HOST, packages={**make.HOST.packages, "vllm": "0.32.0"}),
    ],
)
def test_another_machine_or_software_is_not(tmp_path, host):
    assert differences(make.HOST, host)
    assert not alike.same_engine(run(tmp_path, "one"), run(tmp_path, "two", host=host))


def test_what_moves_no_figure_does_not_count(tmp_path):
    host = replace(
        make.HOST, hostname_hash="b", os="Debian", memory_bytes=1, packages={"torch": "2.13.0", "x": "1"}
    )
    assert alike.same_engine(run(tmp_path, "one"), run(tmp_path, "two", host=host))


def test_another_precision_or_routing_is_not(tmp_path):
    plain = run(tmp_path, "plain")
    half = replace(make.SCENARIO, engine=EngineSettings(dtype="float16"))
    routed = replace(plain.manifest.engine, routing="uniform")
    assert not alike.same_engine(plain, run(tmp_path, "half", scenario=half))
    assert not alike.same_engine(plain, run(tmp_path, "routed", engine=routed))


def test_settings_tell_apart_what_no_other_column_does_and_keep_secrets(tmp_path):
    args = {"max_num_seqs": 64, "api_key": "s3cret", "url": "http://here:1"}
    what = make.manifest("x").scenario
    engine = replace(what.engine, dtype="float32", max_model_len=None, args=args)
    asked = run(tmp_path, "one", scenario=replace(what, engine=engine))
    assert alike.settings_words(asked) == "dtype=float32 max_num_seqs=64"
