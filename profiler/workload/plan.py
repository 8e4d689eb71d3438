"""The requests of one window, and the conversations they may come in; see :mod:`profiler.workload.draws` for
how lengths are drawn and :mod:`profiler.workload.prompts` for what prompts hold."""

from __future__ import annotations

import bisect
from collections.abc import Iterator
from functools import cached_property
from itertools import accumulate
from typing import Any

import msgspec
from msgspec import Struct

from profiler.settings import Length, Pause, Workload
from profiler.workload import prompts
from profiler.workload.draws import GROUP, INPUT, OUTPUT, PAUSE, SHARE, TURNS, Points, length_at, pause_at
from profiler.workload.images import Pictures
from profiler.workload.prompts import BLOCK, NUMBER_BITS, OWN, Buffer, Prompts, joined
from profiler.workload.trace import BLOCK_TOKENS, Trace


class PlannedRequest(Struct, frozen=True):
    """One request before it is sent: lengths in tokens, its kind in a mix, its place in a conversation.

    ``input_tokens`` counts the whole prompt, what was said before included; ``context`` is what was.
    """

    index: int
    input_tokens: int
    output_tokens: int
    share: int = 0
    turn: int = 0
    context: Any = None


class Said(Struct, frozen=True):
    """An earlier turn: ``own_tokens`` of request ``index``, and the answer as JSON text (ids, or the inside
    of a string)."""

    index: int
    own_tokens: int
    answer: bytes
    answer_tokens: int
    as_ids: bool


class Plan:
    """The requests of one window, computed on demand; ``request(i)`` is a pure function of its arguments.

    ``salt`` changes the prompts and nothing else: for servers that outlive a run and may still hold the
    prompts of the last one in their prefix cache.  With a ``trace`` request i is as long as its row i.
    """

    def __init__(
        self, workload: Workload, vocab_size: int, window: int, salt: int = 0, trace: Trace | None = None
    ) -> None:
        self.workload = workload
        self.points = Points(workload.seed, window)
        self.trace = trace
        self._vocab_size = vocab_size
        self._stream = (workload.seed, salt, window)
        self._limits = list(accumulate(share.weight for share in workload.mix))

    def request(self, index: int) -> PlannedRequest:
        """The ``index``-th request of the window, index ≥ 0."""
        if self.trace is not None:
            row = index % len(self.trace)
            return PlannedRequest(index, self.trace.input_tokens[row], self.trace.output_tokens[row])
        share, input_tokens, output_tokens = self._kind(index)
        return PlannedRequest(
            index,
            length_at(input_tokens, self.points.at(INPUT, index)),
            length_at(output_tokens, self.points.at(OUTPUT, index)),
            share,
        )

    def _kind(self, index: int) -> tuple[int, int | Length, int | Length]:
        work = self.workload
        if self._limits:
            place = bisect.bisect(self._limits, self.points.at(SHARE, index) * self._limits[-1])
            number = min(place, len(self._limits) - 1)  # rounding may reach the last limit itself
            return number, work.mix[number].input_tokens, work.mix[number].output_tokens
        assert work.input_tokens is not None, "a plan without lengths, mix or trace"
        assert work.output_tokens is not None, "a plan without lengths, mix or trace"
        return 0, work.input_tokens, work.output_tokens

    def conversation(self, number: int) -> Talk:
        """The ``number``-th conversation of the window, number ≥ 0."""
        return Talk(self, number)

    def think_s(self, pause: float | Pause, index: int) -> float:
        """The pause before request ``index`` of a slot or conversation, in seconds."""
        return pause_at(pause, self.points.at(PAUSE, index))

    # ------------------------------------------------------------------------------ what is asked

    def prompt(self, planned: PlannedRequest) -> list[int]:
        """Token ids of the prompt: exactly ``planned.input_tokens`` of them."""
        return msgspec.json.decode(b"[" + joined(self.ids(planned)) + b"]", type=list[int])

    def text(self, planned: PlannedRequest) -> str:
        """The prompt for endpoints that take text only: as many common words as tokens are wanted.

        The true number of tokens is the endpoint's to say (``usage.prompt_tokens``).
        """
        return msgspec.json.decode(b'"' + joined(self.words(planned)) + b'"', type=str)

    def ids(self, planned: PlannedRequest) -> list[Buffer]:
        """The prompt as JSON numbers, a comma before each."""
        return [part for _, parts in self._turns(planned, self._of_ids, True) for part in parts]

    def words(self, planned: PlannedRequest) -> list[Buffer]:
        """The prompt as the inside of a JSON string, a space before it."""
        return [part for _, parts in self._turns(planned, self._of_words, False) for part in parts]

    def messages(self, planned: PlannedRequest) -> Iterator[tuple[int | None, list[Buffer]]]:
        """The prompt turn by turn, each as :meth:`words`: with the index of the request that said it, or None
        for the server's own answers."""
        return self._turns(planned, self._of_words, False)

    @cached_property
    def pictures(self) -> Pictures | None:
        """What fills the workload's images; None without."""
        return Pictures(self.workload.images, *self._stream) if self.workload.images else None

    @cached_property
    def _of_ids(self) -> Prompts:
        return prompts.of_ids(self._vocab_size, *self._stream)

    @cached_property
    def _of_words(self) -> Prompts:
        return prompts.of_words(*self._stream)

    def _turns(
        self, planned: PlannedRequest, source: Prompts, as_ids: bool
    ) -> Iterator[tuple[int | None, list[Buffer]]]:
        left = planned.input_tokens
        for place, said in enumerate(planned.context or ()):
            yield said.index, self._own(said.index, said.own_tokens, source, place == 0)
            yield None, _answer(said, source, as_ids)
            left -= said.own_tokens + said.answer_tokens
        yield planned.index, self._own(planned.index, left, source, not planned.context)

    def _own(self, index: int, count: int, source: Prompts, opens: bool) -> list[Buffer]:
        """What request ``index`` says itself; the opening turn begins with what its group shares."""
        if self.trace is not None and self.trace.blocks is not None:
            return self._of_blocks(self.trace.blocks[index % len(self.trace)], index, count, source)
        wanted = self.workload.shared_prefix_tokens if opens else 0
        if not wanted:
            return source.fresh(OWN, index, count)
        group = int(self.points.at(GROUP, index) * self.workload.prefix_groups)
        shared = min(wanted, count)
        return source.prefix(group, wanted, shared) + source.fresh(OWN, index, count - shared)

    def _of_blocks(self, blocks: tuple[int, ...], index: int, count: int, source: Prompts) -> list[Buffer]:
        """Blocks of the same number are the same tokens, as they were in the trace."""
        parts: list[Buffer] = []
        for block in blocks[: -(-count // BLOCK_TOKENS)]:
            parts += source.fresh(BLOCK, block % (1 << NUMBER_BITS), min(BLOCK_TOKENS, count))
            count -= min(BLOCK_TOKENS, count)
        return parts + source.fresh(OWN, index, count) if count else parts


def _answer(said: Said, source: Prompts, as_ids: bool) -> list[Buffer]:
    """An answer as it goes into the next prompt.  One that came in another form than the prompt's (a server
    that takes ids and returns none) is replaced by as many tokens."""
    if said.as_ids == as_ids:
        return [said.answer]
    return source.fresh(BLOCK, (1 << NUMBER_BITS) - 1 - said.index, said.answer_tokens)


class Talk:
    """One conversation: each turn's prompt is all that was said before and something new."""

    def __init__(self, plan: Plan, number: int) -> None:
        shape = plan.workload.conversation
        assert shape is not None, "the workload has no conversations"
        self._plan, self._pause = plan, shape.think_s
        self.turns = length_at(shape.turns, plan.points.at(TURNS, number))
        self._last: PlannedRequest | None = None

    def open(self, index: int) -> PlannedRequest:
        """The first turn, which is request ``index`` of the window."""
        self._last = self._plan.request(index)
        return self._last

    def go_on(self, index: int, answer: list[int] | str) -> PlannedRequest | None:
        """The next turn after this ``answer``, as request ``index``; None when the conversation is over."""
        last = self._last
        assert last is not None, "a conversation begins with open()"
        if last.turn + 1 >= self.turns:
            return None
        own = self._plan.request(index)
        history = (*(last.context or ()), _said(last, answer))
        before = sum(said.own_tokens + said.answer_tokens for said in history)
        self._last = msgspec.structs.replace(
            own, input_tokens=before + own.input_tokens, turn=last.turn + 1, context=history
        )
        return self._last

    def think_s(self) -> float:
        """The pause before the turn after the last, in seconds."""
        return self._plan.think_s(self._pause, self._last.index if self._last else 0)


def _said(last: PlannedRequest, answer: list[int] | str) -> Said:
    before = sum(said.own_tokens + said.answer_tokens for said in last.context or ())
    own_tokens = last.input_tokens - before
    if isinstance(answer, str):  # its length in tokens is the server's to know: the asked one
        return Said(last.index, own_tokens, msgspec.json.encode(answer)[1:-1], last.output_tokens, False)
    return Said(last.index, own_tokens, b"".join([b",%d" % each for each in answer]), len(answer), True)
