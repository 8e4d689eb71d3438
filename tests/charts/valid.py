"""What a drawing must be, whatever it shows."""

from __future__ import annotations

import pytest

from profiler.charts import drawing
from profiler.charts.nouns import Chart


def checked(chart: object) -> Chart:
    """The chart, once its spec is valid Vega-Lite, its rows have their columns, and it can be drawn."""
    assert isinstance(chart, Chart), chart
    altair = pytest.importorskip("altair")
    altair.Chart.from_dict(drawing.full_spec(chart) | {"datasets": {}})
    names = {column.name for column in chart.columns}
    assert all(set(row) == names for row in chart.rows)
    assert "NaN" not in drawing.svg(chart, width=360)
    return chart
