"""What a pipeline function is called with, and what it may return."""

from __future__ import annotations

import pytest

from horizon.context import Context
from horizon.errors import StrategyError
from horizon.pipeline import Pipeline, pipelines_of
from horizon.records import Quote

QUOTE = Quote(0.4, 0.6)


def test_the_number_of_arguments_decides_how_many_outputs_a_function_gets() -> None:
    seen: list[tuple[object, ...]] = []

    def first(ctx):
        return 1

    def second(ctx, last):
        seen.append((last,))
        return 2

    def third(ctx, older, newer):
        seen.append((older, newer))
        return 3

    def fourth(ctx):
        return 4

    def last(ctx, *outputs):
        seen.append(outputs)
        return QUOTE

    assert Pipeline([first, second, third, fourth, last]).quotes(Context()) == [QUOTE]
    assert seen == [(1,), (1, 2), (1, 2, 3, 4)]


def test_a_function_may_want_more_than_there_is_if_it_has_defaults() -> None:
    def quote(ctx, fair, width=0.2):
        return Quote(fair - width / 2, fair + width / 2)

    assert Pipeline([lambda ctx: 0.5, quote]).quotes(Context()) == [QUOTE]


def test_methods_and_objects_that_can_be_called_are_functions() -> None:
    class Quoter:
        def __call__(self, ctx):
            return QUOTE

        def quote(self, ctx):
            return [QUOTE]

    assert Pipeline([Quoter()]).quotes(Context()) == [QUOTE]
    assert Pipeline([Quoter().quote]).quotes(Context()) == [QUOTE]
    assert Pipeline([Quoter()]).names == ["Quoter"]


@pytest.mark.parametrize(("returned", "quotes"), [(None, None), (QUOTE, [QUOTE]), ([], []), ((QUOTE, QUOTE), [QUOTE, QUOTE])])
def test_a_quote_several_none_or_nothing_at_all_may_be_returned(returned: object, quotes: object) -> None:
    assert Pipeline([lambda ctx: returned]).quotes(Context()) == quotes


@pytest.mark.parametrize("returned", [0.5, "quote", [QUOTE, None], {"bid": 1}])
def test_anything_else_is_an_error_that_names_the_function(returned: object) -> None:
    def quoter(ctx):
        return returned

    with pytest.raises(TypeError, match="quoter, the last of the pipeline, returned"):
        Pipeline([quoter]).quotes(Context())


def test_a_function_that_needs_more_than_it_can_get_is_refused_at_once() -> None:
    def greedy(ctx, a, b):
        return None

    with pytest.raises(StrategyError, match=r"greedy needs \(ctx, a, b\), but function number 2"):
        Pipeline([lambda ctx: 1, greedy])


def test_a_keyword_that_must_be_given_is_refused_at_once() -> None:
    def demanding(ctx, *, risk):
        return None

    with pytest.raises(StrategyError, match="demanding"):
        Pipeline([demanding])


@pytest.mark.parametrize("pipeline", [None, [], {}, "quoter", [1], {"m": []}])
def test_what_is_no_pipeline_is_refused(pipeline: object) -> None:
    with pytest.raises(StrategyError, match="pipeline"):
        pipelines_of(pipeline, ["m"])


def test_markets_may_have_pipelines_of_their_own_and_a_star_for_the_rest() -> None:
    chosen = pipelines_of({"a": [lambda ctx: QUOTE], "*": [lambda ctx: None]}, ["a", "b"])
    assert chosen["a"].quotes(Context()) == [QUOTE]
    assert chosen["b"].quotes(Context()) is None


def test_a_market_without_a_pipeline_and_a_pipeline_without_a_market_are_refused() -> None:
    with pytest.raises(StrategyError, match="no pipeline for b"):
        pipelines_of({"a": [lambda ctx: None]}, ["a", "b"])
    with pytest.raises(StrategyError, match="functions for c"):
        pipelines_of({"c": [lambda ctx: None], "*": [lambda ctx: None]}, ["a"])
