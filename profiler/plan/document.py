"""A plan as plain data, unrounded: what ``--format json`` prints (docs/plan.md)."""

from __future__ import annotations

from typing import Any

from profiler.plan import Beside, Plan, Reach, Size
from profiler.plan.crossover import Map, stretches


def document(plan: Plan) -> dict[str, Any]:
    """Everything; ``rows`` is the table of ``--format csv``."""
    return {
        "rows": plan.rows,
        "fit": [_size(each, plan) for each in plan.sizes],
        "best": plan.best,
        "worth": [
            {
                "model": each.candidate.name,
                "gpu": each.gpu.gpu,
                "of_gpu": each.other.gpu,
                "times": each.times,
                "times_low": each.low,
                "times_high": each.high,
            }
            for each in plan.worth
        ],
        "slo": [_reach(each) for each in plan.reaches],
        "crossovers": [_map(each) for each in plan.maps],
        "lines": [_map(each) for each in plan.lines],
        "beside": [_beside(each) for each in plan.beside],
        "notes": [*filter(None, [no_map(plan)]), *plan.notes],
    }


def _size(size: Size, plan: Plan) -> dict[str, Any]:
    one, tokens = size.least, plan.question.tokens_each
    return {
        "model": size.candidate.name,
        "gpu": size.gpu.gpu,
        "memory_weights_bytes": one.weights_bytes,
        "kv_bytes_per_token": one.request_bytes(tokens) / tokens,
        "runs_on_gpus": size.runs.gpus if size.runs else None,
        "holds_load_on_gpus": size.holds.gpus if size.holds else None,
        "idle_experts_frac": size.runs.residency_frac if size.runs and size.candidate.feed else None,
        "possible_tensor_parallel": size.candidate.sizes.tensor,
        "possible_expert_parallel": size.candidate.sizes.expert if size.candidate.feed else None,
        "kv_tokens": {each.gpus: each.kv_tokens if each.fits else None for each in size.by_count},
        "smallest_hardware": plan.sets[size.candidate.name],
    }


def _reach(reach: Reach) -> dict[str, Any]:
    return {
        "model": reach.placement.candidate.name,
        "gpu": reach.placement.gpu.gpu,
        "gpus": reach.placement.gpus,
        "concurrency_low": reach.surely,
        "concurrency_high": reach.possibly,
        "times_the_limit": reach.shortfalls,
    }


def _map(found: Map) -> dict[str, Any]:
    rows, columns = range(len(found.contexts)), range(len(found.batches))
    return {
        "moe": found.moe.candidate.name,
        "dense": found.dense.candidate.name,
        "gpu": found.moe.gpu.gpu,
        "gpus": found.moe.gpus,
        "metric": found.metric,
        "batches": found.batches,
        "input_tokens": found.contexts,
        "ratio": found.ratio.value.tolist(),
        "ratio_low": found.ratio.low.tolist(),
        "ratio_high": found.ratio.high.tolist(),
        "winner": [[found.winner(row, column) for column in columns] for row in rows],
        "held": found.held.tolist(),
        "flips": [[each.last for each in stretches(found, row)[:-1]] for row in rows],
    }


def _beside(each: Beside) -> dict[str, Any]:
    if each.found is not None:
        return _map(each.found)
    return {"moe": each.moe.name, "dense": each.dense.name, "gpu": each.gpu.gpu, "gpus": None}


def no_map(plan: Plan) -> str | None:
    """Why there is no map, where there is none."""
    if plan.maps:
        return None
    kinds = {bool(each.feed) for each in plan.question.candidates}
    if kinds == {True}:
        return "no crossover map: give the MoE a dense rival with another --model"
    if kinds == {False}:
        return "no crossover map: none of these models has experts"
    return "no crossover map: the MoE and a dense rival fit together on none of these GPUs"
