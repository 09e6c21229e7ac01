"""Pipelines: lists of functions that turn a context into quotes. The number of arguments decides what a function gets.

(ctx) sees the context, (ctx, last) also what the function before returned, (ctx, a, b) the last two, oldest first, and so on. The last
function returns a Quote, a list of them, or None for "leave my orders as they are".
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from horizon.context import Context
from horizon.errors import StrategyError
from horizon.records import Quote

Stage = Callable[..., Any]
DEFAULT_KEY = "*"


class Pipeline:
    """Raises: StrategyError when there is no function, or one that cannot be called with what it would get."""

    def __init__(self, stages: Sequence[Stage]) -> None:
        if not stages:
            raise StrategyError("the pipeline is empty: hz.run needs pipeline=[...] with at least one function of (ctx)")
        self._stages = [_checked(stage, number) for number, stage in enumerate(stages)]

    @property
    def names(self) -> list[str]:
        return [stage.name for stage in self._stages]

    def quotes(self, ctx: Context) -> list[Quote] | None:
        """What the strategy wants to have in the market now; None: what it has. Raises: whatever its functions raise."""
        outputs: list[Any] = []
        for stage in self._stages:
            outputs.append(stage.call(*(ctx, *outputs[len(outputs) - stage.outputs :])[: stage.arguments]))
        wanted = outputs[-1]
        if wanted is None:
            return None
        wanted = [wanted] if isinstance(wanted, Quote) else list(wanted) if isinstance(wanted, list | tuple) else wanted
        if not isinstance(wanted, list) or not all(isinstance(quote, Quote) for quote in wanted):
            raise TypeError(
                f"{self._stages[-1].name}, the last of the pipeline, returned {wanted!r}, not a Quote, a list of them, or None"
            )
        return wanted


def pipelines_of(pipeline: object, market_ids: Sequence[str]) -> dict[str, Pipeline]:
    """One pipeline per market, from a list, a single function, or a dict by market id with "*" for the rest. Raises: StrategyError."""
    if pipeline is None:
        raise StrategyError("hz.run has no pipeline: give pipeline=[function, ...]")
    if not isinstance(pipeline, Mapping):
        shared = Pipeline(_stages_of(pipeline))
        return dict.fromkeys(market_ids, shared)
    made = {str(key): Pipeline(_stages_of(stages)) for key, stages in pipeline.items()}
    unknown = made.keys() - {*market_ids, DEFAULT_KEY}
    if unknown:
        raise StrategyError(f"the pipeline has functions for {', '.join(sorted(unknown))}, which are no markets of this run")
    missing = [market_id for market_id in market_ids if market_id not in made and DEFAULT_KEY not in made]
    if missing:
        raise StrategyError(f'no pipeline for {", ".join(missing)}: add them to pipeline={{...}}, or "*" for all others')
    return {market_id: made.get(market_id) or made[DEFAULT_KEY] for market_id in market_ids}


class _Stage(NamedTuple):
    name: str
    call: Stage
    arguments: int  # how many it takes, ctx included
    outputs: int  # how many earlier outputs it gets


def _stages_of(pipeline: object) -> list[Stage]:
    if callable(pipeline):
        return [pipeline]
    if not isinstance(pipeline, Sequence) or isinstance(pipeline, str):
        raise StrategyError(
            f"pipeline must be a list of functions, a function, or a dict of lists by market id, got {pipeline!r}"
        )
    return list(pipeline)


def _checked(stage: Stage, earlier: int) -> _Stage:
    """`earlier` is how many outputs there are when it is called."""
    name = getattr(stage, "__name__", type(stage).__name__)
    if not callable(stage):
        raise StrategyError(f"pipeline: {stage!r} is not a function")
    try:
        parameters = inspect.signature(stage).parameters.values()
    except ValueError:  # a function of C without a signature
        return _Stage(name, stage, 2, min(1, earlier))
    places = [one for one in parameters if one.kind in (one.POSITIONAL_ONLY, one.POSITIONAL_OR_KEYWORD)]
    if any(one.kind is one.VAR_POSITIONAL for one in parameters):
        return _Stage(name, stage, 1 + earlier, earlier)
    required = [one.name for one in places if one.default is one.empty]
    named = [one.name for one in parameters if one.kind is one.KEYWORD_ONLY and one.default is one.empty]
    if len(required) > 1 + earlier or named:
        raise StrategyError(
            f"pipeline: {name} needs ({', '.join(required + named)}), but function number {earlier + 1} is called with ctx and at most "
            f"{earlier} outputs of those before it"
        )
    return _Stage(name, stage, len(places), max(0, min(len(places) - 1, earlier)))
