"""SamplingParams: defaults, one form for each field, and errors that name the value and its range."""

import pickle

import numpy as np
import pytest

from nano_llama.core.errors import UserError
from nano_llama.core.sampling import SamplingParams, uniform


def test_an_unset_length_can_be_told_from_16():
    assert SamplingParams(seed=1).for_chat.max_tokens is None
    assert SamplingParams(max_tokens=16).for_chat.max_tokens == 16
    assert SamplingParams(temperature=0).replace(seed=3).for_chat == SamplingParams(
        temperature=0, seed=3, max_tokens=None
    )
    assert SamplingParams() == SamplingParams(max_tokens=16)


def test_defaults_are_vllms():
    params = SamplingParams()
    assert (params.temperature, params.top_k, params.top_p, params.min_p) == (1.0, 0, 1.0, 0.0)
    assert (params.repetition_penalty, params.presence_penalty, params.frequency_penalty) == (1.0, 0.0, 0.0)
    assert (params.max_tokens, params.n, params.seed, params.logprobs, params.ignore_eos) == (16, 1, None, None, False)
    assert params.min_tokens == 0 and params.prompt_logprobs is None
    assert params.stop is None and params.stop_token_ids is None and params.logit_bias is None


def test_lists_become_tuples_and_the_callers_stay_his():
    stop_ids, bias = [1, 2], {5: 1}
    params = SamplingParams(stop="END", stop_token_ids=stop_ids, logit_bias=bias)
    stop_ids.append(3)
    bias.clear()
    assert params.stop == params.stop_strings == ("END",)
    assert params.stop_token_ids == (1, 2)
    assert params.logit_bias == {5: 1.0}
    assert SamplingParams(stop=["a", "b"]).stop == ("a", "b")


def test_replace_checks_anew_and_pickles():
    params = SamplingParams(stop="x", seed=7).replace(temperature=0.0)
    assert params.is_greedy and params.seed == 7 and params.stop == ("x",)
    assert pickle.loads(pickle.dumps(params)) == params
    with pytest.raises(UserError, match="top_p"):
        params.replace(top_p=2.0)


def test_frozen_and_keyword_only_and_closed():
    with pytest.raises(AttributeError):
        SamplingParams().temperature = 2.0
    with pytest.raises(TypeError):
        SamplingParams(0.5)
    with pytest.raises(TypeError, match="best_of"):
        SamplingParams(best_of=2)


@pytest.mark.parametrize(
    ("field", "value", "says"),
    [
        ("temperature", -0.1, "at least 0"),
        ("temperature", float("nan"), "nan"),
        ("temperature", "hot", "must be a number"),
        ("top_p", 0.0, "above 0 and at most 1"),
        ("top_p", 1.5, "1.5"),
        ("min_p", -1, "at least 0 and at most 1"),
        ("top_k", -2, "at least -1"),
        ("top_k", 1.5, "whole number"),
        ("top_k", True, "whole number"),
        ("repetition_penalty", 0, "above 0"),
        ("presence_penalty", 2.1, "at least -2 and at most 2"),
        ("frequency_penalty", float("inf"), "at most 2"),
        ("max_tokens", 0, "at least 1"),
        ("min_tokens", -1, "at least 0"),
        ("min_tokens", None, "whole number"),
        ("min_tokens", 17, "min_tokens=17 must be at most max_tokens=16"),
        ("n", 0, "at least 1"),
        ("seed", -1, "at least 0"),
        ("seed", 2**64, str(2**64 - 1)),
        ("logprobs", -1, "at least 0"),
        ("prompt_logprobs", -1, "at least 0"),
        ("prompt_logprobs", True, "whole number"),
        ("ignore_eos", 1, "True or False"),
        ("stop", "", "none of them empty"),
        ("stop", ["a", 3], "none of them empty"),
        ("stop", 5, "string or a list"),
        ("stop_token_ids", 5, "list of token ids"),
        ("stop_token_ids", ["a"], "whole number"),
        ("stop_token_ids", [-1], "at least 0"),
        ("logit_bias", [1], "dict"),
        ("logit_bias", {1: 101}, r"logit_bias\[1\]=101"),
        ("logit_bias", {"a": 1}, "whole number"),
    ],
)
def test_wrong_values_are_refused_by_name(field, value, says):
    with pytest.raises(UserError, match=says) as caught:
        SamplingParams(**{field: value})
    assert field in str(caught.value)


@pytest.mark.parametrize("kind", [np.int32, np.int64, np.uint64])
def test_numpys_integers_mean_the_same_as_pythons(kind):
    fields = {"seed": 5, "top_k": 4, "n": 2, "max_tokens": 9, "logprobs": 1}
    given = SamplingParams(**{name: kind(value) for name, value in fields.items()})
    assert given == SamplingParams(**fields)
    assert all(type(getattr(given, name)) is int for name in fields)
    assert [uniform(given.seed, place) for place in range(4)] == [uniform(5, place) for place in range(4)]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, False),
        ({"temperature": 0.1, "top_k": 5, "top_p": 0.5, "min_p": 0.1}, False),
        ({"logit_bias": {1: 0.5}}, True),
        ({"repetition_penalty": 1.1}, True),
        ({"presence_penalty": -0.1}, True),
        ({"frequency_penalty": 0.1}, True),
    ],
)
def test_changes_logits(changes, expected):
    assert SamplingParams(**changes).changes_logits is expected
