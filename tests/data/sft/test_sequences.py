"""Examples become ids within the context; nothing is lost without a word."""

import pytest

from nano_llama.core.errors import UserError
from nano_llama.data.sft.forms import Completion, Conversation, Text
from nano_llama.data.sft.sequences import Cut, encode_examples
from nano_llama.tokenizer import Tokenizer


def test_each_form_is_what_the_tokenizer_says(chatml, asked):
    messages = asked("What is the dog?", "The lazy dog.")
    examples = [Conversation("a", messages), Completion("b", "What is", " the dog"), Text("c", "naïve text")]
    chat, completion, text = encode_examples(examples, chatml, 100).sequences
    whole = chatml.encode_chat(messages, add_generation_prompt=False)
    prompt = chatml.encode_chat(messages[:1])
    assert chat.ids.tolist() == whole[: len(chat.ids)]
    assert chat.learned.tolist() == [place >= len(prompt) for place in range(len(chat.ids))]
    assert completion.ids.tolist() == [*chatml.encode("What is the dog"), chatml.eos_id]
    assert completion.learned.sum() == len(chatml.encode(" the dog")) + 1
    assert text.ids.tolist() == [*chatml.encode("naïve text"), chatml.eos_id]
    assert text.learned.tolist() == [False] + [True] * (len(text.ids) - 1)
    assert [one.where for one in (chat, completion, text)] == ["a", "b", "c"]


def test_a_long_text_is_cut_into_pieces_that_learn_each_token_once(chatml):
    text = "What is the lazy dog? " * 20
    whole = [*chatml.encode(text), chatml.eos_id]
    for context in (1, 7, len(whole) - 2, len(whole) - 1, len(whole)):
        encoded = encode_examples([Text("a", text)], chatml, context)
        learned = [int(i) for one in encoded.sequences for i in one.ids[one.learned]]
        assert learned == whole[1:] and not encoded.cut
        assert all(2 <= len(one.ids) <= context + 1 for one in encoded.sequences)


def test_what_does_not_fit_is_cut_after_an_answer_and_reported(chatml, asked):
    messages = asked("What is the dog?", "The dog.", "naïve?", "Yes.", "more text?", "No.")
    (whole,) = encode_examples([Conversation("a", messages)], chatml, 1000).sequences
    (two,) = encode_examples([Conversation("a", messages[:4])], chatml, 1000).sequences
    for context in (len(two.ids) - 1, len(whole.ids) - 2):
        encoded = encode_examples([Conversation("a", messages)], chatml, context)
        (kept,) = encoded.sequences
        assert kept.ids.tolist() == two.ids.tolist() and kept.learned.tolist() == two.learned.tolist()
        lost = len(whole.ids) - len(two.ids)
        assert encoded.cut == [Cut("a", lost, int(whole.learned.sum() - two.learned.sum()))]
    encoded = encode_examples([Conversation("a", messages)], chatml, len(whole.ids) - 1)
    assert len(encoded.sequences[0].ids) == len(whole.ids) and not encoded.cut


def test_an_answer_longer_than_the_context(chatml, asked):
    examples = [Conversation("a, line 1", asked("Q", "A")), Conversation("a, line 2", asked("Q", "The dog " * 30))]
    (short, long) = encode_examples(examples, chatml, 1000).sequences
    context = len(long.ids) - 2
    with pytest.raises(
        UserError, match=f"a, line 2: the answer does not end within the context of {context}"
    ) as caught:
        encode_examples(examples, chatml, context)
    assert f"at least {context + 1}" in caught.value.hint
    encoded = encode_examples(examples, chatml, context, leave_out_long=True)
    assert [one.ids.tolist() for one in encoded.sequences] == [short.ids.tolist()]
    assert encoded.left_out == [Cut("a, line 2", len(long.ids), int(long.learned.sum()))] and not encoded.cut
    with pytest.raises(UserError, match="None of 1 examples"):
        encode_examples(examples[1:], chatml, context, leave_out_long=True)


def test_all_that_is_too_long_is_told_at_once(chatml, asked):
    examples = [Conversation(f"a, line {n}", asked("Q", "The dog " * n)) for n in (30, 1, 60, 40)]
    with pytest.raises(UserError, match=r"a, line 30: .* 2 more of 4 examples are too long") as caught:
        encode_examples(examples, chatml, 60)
    (whole,) = encode_examples(examples[2:3], chatml, 10_000).sequences
    assert f"at least {len(whole.ids) - 1} " in caught.value.hint
    assert len(encode_examples(examples, chatml, len(whole.ids) - 1).sequences) == 4


def test_variables_reach_the_template(chatml, asked):
    source = "{% if loud %}LOUD {% endif %}" + chatml.chat_template
    thinking = Tokenizer(chatml.backend, chatml.roles, source)
    example = Conversation("a, line 1", asked("Q", "A"))
    plain, loud = (
        encode_examples([example], thinking, 100, variables=variables).sequences[0].ids.tolist()
        for variables in (None, {"loud": True})
    )
    assert chatml.decode(loud, skip_special=False) == "LOUD " + chatml.decode(plain, skip_special=False)
    with pytest.raises(UserError, match=r"a, line 1: .*'quiet'"):
        encode_examples([example], thinking, 100, variables={"quiet": True})


@pytest.mark.parametrize(
    ("example", "cause"),
    [
        (Conversation("x.jsonl, line 3", [{"content": "Q"}]), "role None"),
        (Conversation("x.jsonl, line 3", []), "empty"),
        (Conversation("x.jsonl, line 3", [{"role": "user", "content": "Q"}]), "No message is the assistant's"),
        (Conversation("x.jsonl, line 3", [{"role": "user", "content": "Q"}], [{"name": "clock"}]), "'tools'"),
        (Completion("x.jsonl, line 3", "", "A"), "prompt is empty"),
    ],
)
def test_errors_name_the_line(chatml, example, cause):
    with pytest.raises(UserError, match=f"x.jsonl, line 3: .*{cause}") as caught:
        encode_examples([example], chatml, 100)
    assert caught.value.hint


def test_no_context(chatml):
    with pytest.raises(UserError, match="context of 0"):
        encode_examples([Text("a", "text")], chatml, 0)
