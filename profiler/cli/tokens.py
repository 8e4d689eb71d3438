"""``profile tokens``: how many tokens languages take, and what that costs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from profiler.cli.base import PriceText, console, write
from profiler.errors import InputError, nearest

if TYPE_CHECKING:
    from profiler.tokens import TokenPrice


def tokens(
    texts: Annotated[
        list[Path],
        typer.Argument(
            help="A text a language (en.txt my.txt), or one .tsv or .jsonl of parallel sentences."
        ),
    ],
    tokenizer: Annotated[
        list[Path],
        typer.Option(help="tokenizer.json, .model, tekken.json, .tiktoken or a model's folder; repeatable."),
    ],
    baseline: Annotated[
        str | None, typer.Option(help="Language the others are held against.  [en, else the first]")
    ] = None,
    usd_per_m_input: Annotated[
        float | None, typer.Option(help="USD per million input tokens (text that is read).")
    ] = None,
    usd_per_m_output: Annotated[
        float | None, typer.Option(help="USD per million output tokens (text that is written).")
    ] = None,
    run: Annotated[
        Path | None, typer.Option(help="Price tokens as this sealed run cost them, at its cheapest load.")
    ] = None,
    price: PriceText = None,
    api: Annotated[
        str | None, typer.Option(help="Price tokens as this model's API does (profile list api-prices).")
    ] = None,
    form: Annotated[str, typer.Option("--format", help="table, csv, md or json.")] = "table",
) -> None:
    """Count tokens, and their cost, of the same text in several languages."""
    from profiler import tokens as counted
    from profiler.report import sections
    from profiler.report import tokens as report
    from profiler.report.table import FORMATS

    if form not in FORMATS:
        raise InputError(f"--format {form}: no such format{nearest(form, FORMATS)}")
    if price and not run:
        raise InputError("--price is what an hour of the machine of --run costs; give --run too")
    paid = _price((usd_per_m_input, usd_per_m_output), run, price, api)
    given = counted.read(texts)
    base = counted.baseline_of(given, baseline)
    rows = counted.rows(given, [counted.opened(path) for path in tokenizer], base, paid)
    found = report.section(rows)
    if form == "table":
        sections.show([found], console())
    elif form == "csv":
        write(sections.csv(found))
    else:
        write(sections.markdown([found]) if form == "md" else sections.as_json([found]))


def _price(
    given: tuple[float | None, float | None], run: Path | None, price: str | None, api: str | None
) -> TokenPrice | None:
    """What a token costs, from the one place the user named."""
    from profiler.tokens import TokenPrice

    numbers = [each for each in given if each is not None]
    if sum((bool(numbers), run is not None, api is not None)) > 1:
        raise InputError("a token has one price: give --usd-per-m-input/-output, --run or --api")
    if any(not 0 < each < float("inf") for each in numbers):
        raise InputError(f"--usd-per-m-input/-output {min(numbers):g}: a price is a positive number of USD")
    if numbers:
        return TokenPrice(
            input_usd_per_m=given[0], output_usd_per_m=given[1], source=f"given, {_told(given)}"
        )
    if run is not None:
        return _of_run(run, price)
    return _of_api(api) if api else None


def _told(prices: tuple[float | None, float | None]) -> str:
    told = zip(prices, ("input", "output"), strict=True)
    return ", ".join(f"{usd:.3g} USD per 10⁶ {side} tokens" for usd, side in told if usd is not None)


def _of_run(run: Path, price: str | None) -> TokenPrice:
    """The run's own cost of an input and an output token, at the load where its output tokens are cheapest.

    Raises InputError when it has no price, or nothing was measured.
    """
    from profiler import cost, figures, store
    from profiler.cost import terms
    from profiler.report.table import load_text
    from profiler.tokens import TokenPrice

    measured = figures.of_runs(store.find([run]))
    prefill, on = figures.prefill_s(measured), terms.read(price=price)
    costs = [(cost.columns(each, prefill[each.run], on).estimates, each) for each in measured]
    priced = [(each, at) for each, at in costs if "usd_per_m_output_tokens" in each]
    if not priced:
        raise InputError(f"{run}: its tokens have no price; give --price USD_PER_HOUR")
    if len({at.model for _, at in priced}) > 1:
        raise InputError(f"{run}: runs of several models; name the folder of one")
    cheapest, at = min(priced, key=lambda pair: pair[0]["usd_per_m_output_tokens"].value)
    # With input priced apart, output is what is left of the bill; else it carries all of it.
    read, written = (cheapest.get(f"usd_per_m_{name}") for name in ("input_tokens", "output_tokens_apart"))
    written = written or cheapest["usd_per_m_output_tokens"]
    whole = "" if read else ", the whole bill on output tokens (no point measured prefill apart)"
    return TokenPrice(
        input_usd_per_m=read.value if read else None,
        output_usd_per_m=written.value,
        source=f"{run.name}: {at.model} at load {load_text(at.facts)}, at 100 % utilisation{whole}: "
        + _told((read.value if read else None, written.value)),
    )


def _of_api(model: str) -> TokenPrice:
    """The list price of the middle provider; raises InputError when nobody lists the model."""
    from profiler.cost import listed, terms
    from profiler.prices import Missing
    from profiler.tokens import TokenPrice

    found = listed.prices(model, terms.read())
    if isinstance(found, Missing):
        raise InputError(
            f"--api {model}: the catalog has no API price for it (profile list api-prices); "
            "give --usd-per-m-input and --usd-per-m-output"
        )
    middle, low, high = found.ranked(1.0, 1.0)
    span = f", of {len(found.offers)} between {low.provider} and {high.provider}"
    return TokenPrice(
        input_usd_per_m=middle.input,
        output_usd_per_m=middle.output,
        source=f"list price of {model} by {middle.provider}, {middle.date}"
        f"{span if len(found.offers) > 1 else ''}: {_told((middle.input, middle.output))}",
    )
