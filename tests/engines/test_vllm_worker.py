"""What a worker keeps of its layers' choices, with a model and a model runner of our own."""

from __future__ import annotations

import base64
import io
from types import SimpleNamespace

import numpy as np
import pytest

from profiler.engines.vllm_worker import WorkerRouting, routing_layers

torch = pytest.importorskip("torch")


class Router:
    """Chooses experts by the token's id and the layer, as told through ``chosen``."""

    words = "model"

    def set_capture_fn(self, seen):
        self.seen = seen

    def select_experts(self, ids):
        chosen = torch.stack([ids % 7, ids % 5 + 10], 1).to(torch.int32)
        if hasattr(self, "seen"):
            self.seen(chosen)


class Layer(torch.nn.Module):
    def __init__(self, number, monolithic=False):
        super().__init__()
        self.layer_id, self.router, self.is_monolithic = number, Router(), monolithic
        self.moe_config = SimpleNamespace(num_logical_experts=16)

    def forward(self, ids):
        self.router.select_experts(ids + self.layer_id)


class Network(torch.nn.Module):
    """Layers that route are held in another order than they have in the model."""

    def __init__(self, *numbers):
        super().__init__()
        self.layers = torch.nn.ModuleList([Layer(number) for number in numbers])
        self.other = torch.nn.Linear(2, 2)

    def forward(self, ids):
        for layer in self.layers:
            layer(ids)


class Runner:
    """Steps of requests' tokens, each a run of ids from where the request stands, then padding."""

    def __init__(self, model, padding=0):
        self.get_model = lambda: model
        self.padding = padding

    def step(self, *pieces):
        self.input_batch = SimpleNamespace(
            req_ids=[name for name, _, _ in pieces],
            num_computed_tokens_cpu=np.array([first for _, first, _ in pieces]),
        )
        lengths = [len(ids) for _, _, ids in pieces]
        self.query_start_loc = SimpleNamespace(np=np.cumsum([0, *lengths, *[0] * self.padding]))
        ids = [token for _, _, tokens in pieces for token in tokens] + [0] * self.padding
        self.get_model()(torch.tensor(ids))


def recording(*numbers, rank=0, padding=0):
    worker = WorkerRouting()
    worker.rank, worker.model_runner = rank, Runner(Network(*numbers), padding)
    worker.profiler_record()
    return worker


def rows(worker, answer, positions):
    return np.load(io.BytesIO(base64.b64decode(worker.profiler_routed(answer, positions))))


def expected(ids, layers):
    return np.array([[[(i + n) % 7, (i + n) % 5 + 10] for n in layers] for i in ids])


@pytest.mark.parametrize("padding", [0, 3])
def test_rows_belong_to_their_request_and_position(padding):
    """Prompts in pieces, requests that change their place in the batch, a token that is run twice."""
    worker = recording(4, 1, padding=padding)
    run = worker.model_runner.step
    run(("a-0-x", 0, [11, 12, 13]), ("b-0-y", 0, [21]))
    run(("b-0-y", 1, [22, 23]), ("a-0-x", 3, [14]))
    run(("b-0-y", 2, [23, 24]), ("a-0-x", 4, [15]))
    first = rows(worker, "a", 4)
    assert first.dtype == np.uint16
    assert first.tolist() == expected([11, 12, 13, 14], (1, 4)).tolist()
    assert rows(worker, "b", 4).tolist() == expected([21, 22, 23, 24], (1, 4)).tolist()
    run(("c-0-x", 0, [1]), ("d-0-x", 0, [2]))
    with pytest.raises(KeyError):
        worker.profiler_routed("c", 2)


def test_an_answer_is_told_once_and_only_whole():
    worker = recording(0)
    worker.model_runner.step(("a-0-x", 0, [1]), ("ab-0-x", 0, [2]), ("c-0-x", 5, [3]))
    assert rows(worker, "a", 1).tolist() == expected([1], (0,)).tolist()
    with pytest.raises(StopIteration):
        worker.profiler_routed("a", 1)
    with pytest.raises(KeyError):
        worker.profiler_routed("c", 6)


def test_other_ranks_keep_nothing():
    worker = recording(0, rank=1)
    worker.model_runner.step(("a-0-x", 0, [1]))
    assert worker.profiler_routed("a", 1) is None
    assert not hasattr(worker, "profiler_recorder")


def test_layers_that_route_are_told_in_the_models_order_with_who_chooses():
    worker = recording(5, 2, 3)
    model = worker.model_runner.get_model()
    assert list(routing_layers(model)) == [2, 3, 5]
    model.layers[0].router.words = "uniform"  # layer 5
    model.layers[1].router.words = "uniform"  # layer 2, whose kernel does not ask it
    model.layers[1].is_monolithic = True
    assert worker.profiler_routing() == {
        "layers": [2, 3, 5],
        "experts": 16,
        "routing": ["model", "model", "uniform"],
    }
