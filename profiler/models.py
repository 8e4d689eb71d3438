"""A model's name → where its config and weights come from.  Nothing large is downloaded here.

A name is tried as: built-in tiny model, local folder, catalog entry (or a variant of one, such as
``-Instruct``), other Hub id.  Only the last two look at the network, for three seconds at most.
"""

from __future__ import annotations

import os
import re
import threading
import time
from collections.abc import Callable, Iterable
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, TypeVar

import msgspec

from profiler import arch, catalog, secret
from profiler.catalog import CatalogModel
from profiler.errors import InputError, nearest
from profiler.schema import Model, ModelFacts

WEIGHTS = ("auto", "hub", "random")
REACH_TIMEOUT_S = 3.0
FETCH_TIMEOUT_S = 10.0
T = TypeVar("T")


def resolve(name: str, weights: str = "auto") -> Model:
    """The model called ``name``, with config, facts, and the kind of weights it will run on.

    ``weights``: ``hub`` insists on downloaded (or cached) weights, ``random`` needs a config only,
    ``auto`` takes a folder's own weights, else the Hub's where it can be reached, else random ones, and
    says so in ``notes``.  Raises InputError.
    """
    if weights not in WEIGHTS:
        raise InputError(f"unknown kind of weights {weights!r}{nearest(weights, WEIGHTS)}")
    if name in catalog.tiny_models():
        return _tiny(name, weights)
    folder = Path(os.path.expanduser(name))
    if os.path.isdir(folder) and (os.path.isfile(folder / "config.json") or _is_path(name)):
        return _local(folder, weights)
    if _is_path(name):
        raise InputError(f"model {name}: no such folder; a local model is a folder with config.json")
    entry = catalog.find(name)
    return _published(name, entry, weights) if entry else _unlisted(name, weights)


def remote(name: str) -> Model:
    """A model served elsewhere: its facts when the catalog knows the name, else none."""
    config = catalog.tiny_models().get(name)
    entry = catalog.find(name)
    facts = arch.model_facts(config, "built in") if config else _catalog_facts(entry) if entry else None
    return Model(name=name, weights="remote", facts=facts)


def hub_id(name: str) -> str | None:
    """The Hub's id of a published model that the catalog has the shapes of, however it is written; None for
    any other.  Looks at no network."""
    entry = None if name in catalog.tiny_models() or _is_path(name) else catalog.find(name)
    return _hub_id(name, entry)[0] if entry else None


def beside(name: str, folder: Path) -> str:
    """The name of a local model that is written relative to ``folder``, as a path from anywhere; other names
    as they are."""
    path = folder / Path(os.path.expanduser(name))
    is_folder = os.path.isdir(path) and (_is_path(name) or os.path.isfile(path / "config.json"))
    return str(path.absolute()) if is_folder and name not in catalog.tiny_models() else name


# ------------------------------------------------------------------------------------ the four kinds


def _tiny(name: str, weights: str) -> Model:
    if weights == "hub":
        raise InputError(f"{name} is built in and has no published weights; use --weights random (or auto)")
    config = catalog.tiny_models()[name]
    return Model(name=name, weights="random", config=config, facts=arch.model_facts(config, "built in"))


def _local(folder: Path, weights: str) -> Model:
    if weights == "hub":
        raise InputError(f"model {folder}: a local folder has its own weights; use --weights auto or random")
    config = _read_config(folder / "config.json")
    facts, notes = _facts(config, str(folder / "config.json"))
    has_weights = any(folder.glob("*.safetensors")) or any(folder.glob("*.bin"))
    kind: Literal["local", "random"] = "local" if has_weights and weights == "auto" else "random"
    if not has_weights and weights == "auto":
        notes += (f"random weights: {folder} has neither *.safetensors nor *.bin",)
    return Model(
        name=folder.resolve().name,
        weights=kind,
        config=config,
        folder=str(folder.resolve()),
        facts=facts,
        notes=notes,
    )


def _published(name: str, entry: CatalogModel, weights: str) -> Model:
    hub_id, notes = _hub_id(name, entry)
    reason = None if weights == "random" else _unavailable(hub_id)
    if weights == "hub" and reason:
        raise InputError(f"model {hub_id}: --weights hub: {reason}; connect, or use --weights random")
    if reason:
        notes += (f"random weights: {reason}",)
    kind: Literal["hub", "random"] = "random" if weights == "random" or reason else "hub"
    config = dict(entry.config)
    if kind == "random" and config.pop("quantization_config", None):
        notes += (f"random weights are drawn as plain numbers, not in the format of {hub_id}",)
    return Model(name=hub_id, weights=kind, config=config, facts=_catalog_facts(entry), notes=notes)


def _hub_id(name: str, entry: CatalogModel) -> tuple[str, tuple[str, ...]]:
    """The Hub's id for what the user asked: the entry's own, or the variant named (with a note)."""
    organisation = entry.id.partition("/")[0]
    asked = name if "/" in name else f"{organisation}/{name}"
    if asked.lower() in (entry.id.lower(), entry.hub.lower()):
        return entry.hub, ()
    return asked, (
        f"shapes of {entry.id} from the catalog: {asked} differs in training or number format only",
    )


def _unlisted(name: str, weights: str) -> Model:
    hint = _nearest_model(name)
    if not re.fullmatch(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", name):
        raise InputError(f"unknown model {name!r}{hint}; the catalog: profile list models")
    cached = cached_file(name, "config.json")
    reason = None if cached else _unreachable()
    if not cached and reason:
        raise InputError(
            f"unknown model {name!r}, and {reason} to look it up{hint}; the catalog: profile list models"
        )
    config = _read_config(cached or _fetch_config(name, hint))
    facts, notes = _facts(config, f"huggingface.co/{name}")
    missing = _unavailable(name) if weights != "random" else None
    if weights == "hub" and missing:
        raise InputError(f"model {name}: --weights hub: {missing}; connect, or use --weights random")
    if missing:
        notes += (f"random weights: {missing}",)
    kind: Literal["hub", "random"] = "random" if weights == "random" or missing else "hub"
    return Model(name=name, weights=kind, config=config, facts=facts, notes=notes)


# -------------------------------------------------------------------------------- configs and facts


def _facts(config: dict[str, Any], source: str) -> tuple[ModelFacts | None, tuple[str, ...]]:
    try:
        facts = arch.model_facts(config, source)
        lacks = f"sizes are lower bounds, not counted: {'; '.join(facts.missing)}"
        return facts, (lacks,) if facts.missing else ()
    except arch.UnsupportedArchitectureError as error:
        return None, (f"{error}: no size check before the start, no ceilings beside the results",)
    except InputError as error:
        raise InputError(f"{source}: {error}") from None


def _catalog_facts(entry: CatalogModel) -> ModelFacts:
    return arch.model_facts(entry.config, f"catalog: {entry.source}")


def _read_config(path: Path) -> dict[str, Any]:
    try:
        config = msgspec.json.decode(path.read_bytes(), type=dict[str, Any])
    except FileNotFoundError:
        raise InputError(f"model {path.parent}: no config.json there; a local model needs one") from None
    except (OSError, UnicodeDecodeError, msgspec.MsgspecError, RecursionError) as error:
        raise InputError(f"{path}: not a readable JSON config: {error}") from None
    if "model_type" not in config:
        raise InputError(f"{path}: not a Hugging Face model config: model_type is missing")
    _check_quantization(config, path)
    return config


def _check_quantization(config: dict[str, Any], path: Path) -> None:
    found = config.get("quantization_config")
    if found is not None and not isinstance(found, dict):
        raise InputError(f"{path}: quantization_config is {found!r:.60}, expected an object")
    method = (found or {}).get("quant_method")
    if method is not None and not isinstance(method, str):
        raise InputError(f"{path}: quantization_config.quant_method is {method!r:.60}, expected a string")


def _is_path(name: str) -> bool:
    return name.startswith(("/", "./", "../", "~")) or name in (".", "..") or name.count("/") > 1


def _nearest_model(name: str) -> str:
    known = [*catalog.models(), *catalog.tiny_models()]
    bases = {each.rsplit("/", 1)[-1].lower(): each for each in reversed(known)}
    from difflib import get_close_matches

    close = get_close_matches(name.rsplit("/", 1)[-1].lower(), bases, n=3, cutoff=0.5)
    return f" (nearest: {', '.join(bases[each] for each in close)})" if close else ""


# -------------------------------------------------------------------------------------------- the Hub


def _unavailable(hub_id: str) -> str | None:
    """Why the engine could not get these weights, None when it can: they are cached, or the Hub answers."""
    config = cached_file(hub_id, "config.json")
    if config and _any(config.parent, ("*.safetensors", "*.bin")):
        return None
    return _unreachable()


def _any(folder: Path, patterns: Iterable[str]) -> bool:
    return any(True for pattern in patterns for _ in folder.glob(pattern))


def _unreachable() -> str | None:
    """Why the Hub cannot be asked, None when it answers; takes three seconds at most."""
    if any(
        os.environ.get(key, "").lower() in ("1", "true", "on", "yes")
        for key in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")
    ):
        return "the Hub is switched off by HF_HUB_OFFLINE"
    endpoint = _endpoint()
    if not endpoint.startswith(("https://", "http://")):
        return f"HF_ENDPOINT is not a URL: {secret.without(endpoint)!r}"
    this_minute = int(time.perf_counter() // 60)
    return None if _reaches(endpoint, this_minute) else f"{secret.without(endpoint)} cannot be reached"


def _endpoint() -> str:
    return os.environ.get("HF_ENDPOINT", "https://huggingface.co").rstrip("/")


@lru_cache(maxsize=1)
def _reaches(endpoint: str, _minute: int) -> bool:
    """Asked once a minute, so that many models do not wait for many timeouts."""
    return bool(within(REACH_TIMEOUT_S, lambda: _answers(endpoint)))


def _answers(endpoint: str) -> bool:
    import urllib.request
    from http.client import HTTPException
    from urllib.error import HTTPError

    try:
        request = urllib.request.Request(endpoint, method="HEAD")  # noqa: S310  (the caller checked the scheme)
        with urllib.request.urlopen(request, timeout=REACH_TIMEOUT_S):  # noqa: S310
            return True
    except HTTPError as error:
        return error.code < 500  # a refusal is an answer; a broken gateway is not the Hub
    except (OSError, HTTPException, ValueError):
        return False


def within(seconds: float, call: Callable[[], T]) -> T | None:
    """``call()``, or None once ``seconds`` have passed: name look-ups obey no timeout of their own."""
    results: list[T] = []
    worker = threading.Thread(target=lambda: results.append(call()), daemon=True)
    worker.start()
    worker.join(seconds)
    return results[0] if results else None


def cached_file(hub_id: str, name: str) -> Path | None:
    """A file of ``hub_id`` in the local Hugging Face cache; None where it is not there."""
    try:
        from huggingface_hub import try_to_load_from_cache
    except ImportError:
        return None
    found = try_to_load_from_cache(hub_id, name)
    return Path(found) if isinstance(found, str) else None


def _fetch_config(hub_id: str, hint: str) -> Path:
    try:
        from huggingface_hub import hf_hub_download
        from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, RepositoryNotFoundError
    except ImportError:
        raise InputError(
            f"model {hub_id} is not in the catalog; install moe-profiler[transformers] to ask the Hub{hint}"
        ) from None

    def fetch() -> Path | InputError:
        try:
            return Path(hf_hub_download(hub_id, "config.json", endpoint=_endpoint()))
        except GatedRepoError:
            page = f"https://huggingface.co/{hub_id}"
            return InputError(f"model {hub_id} is gated: accept its terms at {page} and set HF_TOKEN")
        except RepositoryNotFoundError:
            return InputError(f"no model {hub_id!r} on the Hub (or it is private: set HF_TOKEN){hint}")
        except (HfHubHTTPError, OSError, ValueError) as error:
            why = secret.without(str(error).splitlines()[0], secret.values(os.environ))
            return InputError(f"model {hub_id}: its config.json could not be fetched: {why}")

    found = within(FETCH_TIMEOUT_S, fetch)
    if found is None:
        raise InputError(
            f"model {hub_id}: the Hub did not deliver config.json in {FETCH_TIMEOUT_S:g} s; try again"
        )
    if isinstance(found, InputError):
        raise found
    return found
