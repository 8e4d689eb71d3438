"""``routing.parquet`` as arrays."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from profiler.errors import InputError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from profiler.store import RunResult

    Ints = NDArray[np.int64]
    Floats = NDArray[np.float64]
    Flags = NDArray[np.bool_]


class Recording(NamedTuple):
    """Tokens in the order of their requests and positions.

    ``request`` counts from 0 without gaps; ``chosen``: [tokens, layers, k].
    """

    request: Ints
    is_output: Flags
    chosen: NDArray[np.uint16]
    layers: tuple[int, ...]
    experts: int

    @property
    def requests(self) -> int:
        return int(self.request[-1]) + 1

    @property
    def per_token(self) -> int:
        return int(self.chosen.shape[2])

    def of_layer(self, place: int) -> Ints:
        """Experts of every token in one layer, [tokens, k]."""
        import numpy as np

        return np.ascontiguousarray(self.chosen[:, place, :]).astype(np.int64)


def read(run: RunResult) -> Recording | None:
    """The recording of a run, None where it has none; raises InputError when it contradicts its manifest."""
    import numpy as np

    record, table = run.manifest.routing, run.routing
    if record is None or table is None:
        return None
    layers, k = len(record.layers), record.experts_per_token
    experts = table.column("experts").combine_chunks()
    flat = experts.flatten().to_numpy(zero_copy_only=False)
    if not len(table) or flat.size != len(table) * layers * k or int(flat.max()) >= record.experts:
        raise InputError(
            f"{run.folder}: routing.parquet does not hold, as the manifest says, {k} of {record.experts} "
            f"experts of {layers} layers for every token; measure this run anew"
        )
    request, position = (table.column(name).to_numpy() for name in ("request", "position"))
    order = np.lexsort((position, request))
    _, numbers = np.unique(request[order], return_inverse=True)
    return Recording(
        request=numbers.astype(np.int64),
        is_output=table.column("is_output").to_numpy(zero_copy_only=False)[order],
        chosen=flat.reshape(len(table), layers, k)[order],
        layers=record.layers,
        experts=record.experts,
    )
