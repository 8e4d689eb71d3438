"""Which node holds what: kinds of GPUs, sizes, pairs, packing and engines that span nodes."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from profiler import host, scenario
from profiler.cluster.nodes import Node
from profiler.schema import Gpu
from profiler.settings import EngineSettings, Load
from profiler.sweep.nouns import Asked, Start, Visit
from profiler.sweep.remote_places import Places

SMOKE = scenario.load("smoke")
HOST = replace(host.collect(), gpus=())


def node(name: str, gpus: int = 0, kind: str | None = None, cpus: int = 8, boards=(), **facts) -> Node:
    found = replace(HOST, gpus=boards, **facts)
    return Node(id=f"id-{name}", name=name, cpus=cpus, gpus=gpus, accelerator=kind, host=found)


def visit(cell: str = "c", gpu: str | None = None, gpus: int = 0, machines: int = 1, **engine) -> Visit:
    settings = EngineSettings(**{"kind": "vllm"} | engine)
    what = replace(SMOKE, engine=settings, load=Load(mode="closed", concurrency=(1,), machines=machines))
    start = Start(
        key=cell,
        number=0,
        model="m",
        weights="auto",
        gpu=gpu,
        gpus=gpus,
        asked=(Asked(cells=(cell,), scenario=what),),
    )
    return Visit(block=0, pair=cell, starts=(start,))


def places(*nodes: Node, pack: bool = False, before=()) -> Places:
    return Places(nodes, lambda start: start.gpus or 0, pack, dict(before))


def where(some: Places, what: Visit) -> str | None:
    found = some.free(what)
    return found.node.name if found else None


def put(some: Places, what: Visit) -> str | None:
    found = some.free(what)
    if found is not None:
        some.take(found, what)
    return found.node.name if found else None


H, A = node("h", 8, "H100"), node("a", 4, "A100")


@pytest.mark.parametrize(
    ("gpu", "gpus", "expected"),
    [
        ("H100", 1, "h"),
        ("A100", 1, "a"),
        (None, 1, "a"),
        (None, 5, "h"),
        ("A100", 5, None),
        ("H100", 9, None),
    ],
)
def test_kind_and_size(gpu, gpus, expected):
    """Of any kind: where the fewest GPUs lie idle."""
    assert where(places(H, A), visit(gpu=gpu, gpus=gpus)) == expected


def test_what_needs_no_gpu_leaves_those_that_have_some():
    assert where(places(H, node("c"), A), visit()) == "c"


def test_the_driver_names_the_kind_where_the_cluster_does_not():
    board = Gpu(uuid="u", name="NVIDIA H100 80GB HBM3", memory_bytes=80 << 30, power_limit_w=700)
    some = places(node("n", 1, boards=(board,)), A)
    assert where(some, visit(gpu="H100", gpus=1)) == "n"


def test_one_engine_a_node_unless_packed():
    alone = places(A)
    assert [put(alone, visit(cell, gpus=1)) for cell in "xy"] == ["a", None]
    packed = places(A, pack=True)
    assert [put(packed, visit(cell, gpus=2)) for cell in "xyz"] == ["a", "a", None]
    assert [(each.gpus, each.cpus) for each in packed._taken] == [(2, 4), (2, 4)]


def test_packed_engines_that_compute_share_no_cpus():
    small = places(node("c", cpus=2), pack=True)
    assert [put(small, visit(cell)) for cell in "xy"] == ["c", None]
    simulated = places(node("c", cpus=2), pack=True)
    assert [put(simulated, visit(cell, kind="simulated")) for cell in "xyz"] == ["c", "c", None]


def test_cells_stay_on_their_node_while_there_is_one():
    other = node("a2", 4, "A100")
    some = places(A, other, before={"x": "a2"})
    first = some.free(visit("x", gpus=1))
    assert first.node.name == "a2"
    some.take(first, visit("x", gpus=1))
    assert where(some, visit("x", gpus=1)) is None  # it waits, though the other is free
    some.give_back(first)
    some.lose(other.id)
    assert where(some, visit("x", gpus=1)) == "a"


def test_lost_cells_go_to_a_node_that_is_alike_if_there_is_one():
    gone, unlike, alike = node("gone", 4, "A100"), node("b", 4, "A100", driver="9"), node("z", 4, "A100")
    some = places(gone, unlike, alike, before={"x": "gone"})
    some.lose(gone.id)
    assert where(some, visit("x", gpus=1)) == "z"
    some.lose(alike.id)
    assert where(some, visit("x", gpus=1)) == "b"


def test_an_engine_that_spans_nodes_has_the_cluster_to_itself():
    args = {"pipeline-parallel-size": 2}
    some = places(A, H)
    spanning = some.free(visit("x", gpus=12, args=args))
    assert (spanning.node.name, spanning.gpus, spanning.spans) == ("h", 0, True)
    some.take(spanning, visit("x"))
    assert where(some, visit("y", gpus=1)) is None
    some.give_back(spanning)
    assert put(some, visit("y", gpus=1)) == "a"
    assert some.free(visit("x", gpus=12, args=args)) is None


def test_nodes_that_send_the_load_are_left_alone():
    c, d = node("c"), node("d")
    some = places(A, c, d)
    loaded = visit("x", gpus=1, machines=3)
    found = some.free(loaded)
    assert (found.node.name, set(found.helpers)) == ("a", {c.id, d.id})
    some.take(found, loaded)
    assert where(some, visit("y")) is None
    some.give_back(found)
    assert put(some, visit("y")) == "c"
    assert where(some, loaded) is None
