"""Which experts a MoE uses, recorded in a pass of its own after the last timed window.

The prompts are the workload's, of a window that no run ever holds, cut to what ``[routing]`` says; each is
asked of the engine on its own, some at a time, and the answer comes with the experts of every position.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from queue import Empty, SimpleQueue
from threading import Thread
from typing import TYPE_CHECKING, Any

import msgspec

from profiler.engines import routing_unknown
from profiler.engines.base import Routed, RoutingSource
from profiler.errors import EngineError
from profiler.records import ROUTING_NOT_YET, routing_schema
from profiler.schema import Model, RoutingRecord
from profiler.settings import EngineSettings, Scenario
from profiler.workload import Plan, load_trace

if TYPE_CHECKING:
    import numpy as np

WINDOW = 1 << 16  # no run holds so many
AT_ONCE = 16
NOT_YET = ROUTING_NOT_YET


def missing(scenario: Scenario, settings: EngineSettings, model: Model) -> str | None:
    """Why no routing will be recorded; ``NOT_YET`` where it will be; None for a dense model."""
    if model.facts is not None and model.facts.kind != "moe":
        return None
    if scenario.routing.record == "off":
        return "switched off (routing.record)"
    return routing_unknown(settings, model) or NOT_YET


def prompts(scenario: Scenario, vocab_size: int) -> Iterator[tuple[list[int], int]]:
    """Token ids and the number of tokens to answer with, for each request of the pass.

    Of a long prompt the end is kept: a beginning may be shared by all.
    """
    asked, load = scenario.routing, scenario.load
    trace = load_trace(load.trace, load) if load.trace else None
    plan = Plan(scenario.workload, vocab_size, WINDOW, trace=trace)
    for index in range(asked.requests):
        planned = plan.request(index)
        text = b"".join(plan.ids(planned)).lstrip(b",")
        ids = msgspec.json.decode(b"[" + text + b"]", type=list[int])
        yield ids[-asked.max_input_tokens :], min(planned.output_tokens, asked.max_output_tokens)


def record(
    source: RoutingSource, scenario: Scenario, model: Model, routing: str | None, say: Callable[[str], None]
) -> tuple[Any, RoutingRecord]:
    """Ask for everything and put it together: the table of ``records.routing_schema``, and what it is of.

    Raises EngineError when the engine does not tell, or tells nonsense.
    """
    assert model.facts is not None, "only a known architecture is recorded"
    asked = list(prompts(scenario, model.facts.vocab_size))
    told: dict[int, Routed] = {}
    for number, answer in _answers(source, asked, scenario.timeouts.total_s):
        told[number] = _checked(answer, source)
        say(f"recording the routing · {len(told)}/{len(asked)}")
    answers = [told[number] for number in range(len(asked))]
    table = _table(answers)
    found = RoutingRecord(
        source=source.says,
        routing=routing or "model",
        requests=len(answers),
        tokens=len(table),
        layers=source.layers,
        experts=source.experts,
        experts_per_token=answers[0].experts.shape[2],
    )
    return table, found


def _answers(
    source: RoutingSource, asked: Sequence[tuple[list[int], int]], limit_s: float
) -> Iterator[tuple[int, Routed]]:
    """Each answer with the number of its prompt, as they come; the first error ends it.

    The threads are daemons: those of a pool are joined at exit, where a second Ctrl-C can have left one of
    its locks taken for good.
    """
    todo: SimpleQueue[int] = SimpleQueue()
    done: SimpleQueue[tuple[int, Routed | BaseException]] = SimpleQueue()
    for number in range(len(asked)):
        todo.put(number)

    def work() -> None:
        with suppress(Empty):
            while True:
                number = todo.get_nowait()
                try:
                    done.put((number, source.ask(*asked[number], limit_s)))
                except BaseException as error:  # whatever it is, somebody waits for this answer
                    done.put((number, error))

    for _ in range(min(AT_ONCE, len(asked))):
        Thread(target=work, daemon=True).start()
    try:
        for _ in asked:
            number, answer = done.get()
            if isinstance(answer, BaseException):
                raise answer
            yield number, answer
    finally:
        with suppress(Empty):
            while True:
                todo.get_nowait()


def _checked(answer: Routed, source: RoutingSource) -> Routed:
    layers, most = answer.experts.shape[1], int(answer.experts.max(initial=0))
    if layers != len(source.layers) or most >= source.experts:
        raise EngineError(
            f"{source.says}: experts up to {most} in {layers} layers were told, of {source.experts} experts "
            f"in {len(source.layers)} layers"
        )
    return answer


def _table(answers: list[Routed]) -> Any:
    import numpy as np
    import pyarrow as pa

    lengths = [len(each.experts) for each in answers]
    position = np.concatenate([np.arange(length, dtype=np.int32) for length in lengths])
    prompt = np.repeat([each.prompt_tokens for each in answers], lengths)
    experts: np.ndarray[Any, Any] = np.concatenate([each.experts for each in answers])
    width = experts.shape[1] * experts.shape[2]
    columns = {
        "request": np.repeat(np.arange(len(answers), dtype=np.int32), lengths),
        "position": position,
        "is_output": position >= prompt,
        "experts": pa.FixedSizeListArray.from_arrays(pa.array(experts.reshape(-1)), width),
    }
    return pa.table(columns, schema=routing_schema(*experts.shape[1:]))
