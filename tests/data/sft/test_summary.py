"""The figures that are shown before a step, counted again here by hand."""

from nano_llama.data.sft.batches import ExampleBatches
from nano_llama.data.sft.forms import Conversation, Text
from nano_llama.data.sft.sequences import Cut, encode_examples
from nano_llama.data.sft.summary import summarize


def test_figures(chatml, asked):
    chats = [Conversation(f"line {i}", asked("What is it?", "The dog" * (i + 1))) for i in range(5)]
    chats.append(Conversation("line 5", asked("What is it?", "The dog " * 99)))
    examples = [*chats, Text("line 6", "naïve text, " * 20)]
    encoded = encode_examples(examples, chatml, 60, leave_out_long=True)
    batches = ExampleBatches(encoded.sequences, 4, 60)
    found = summarize(encoded, batches, chatml)
    texts = [one for one in encoded.sequences if one.where == "line 6"]
    assert found.examples == 7 and found.sequences == 5 + len(texts) and len(texts) > 1
    assert found.tokens == sum(len(one.ids) for one in encoded.sequences)
    answers = sum(len(chatml.encode("The dog" * (i + 1))) + 1 for i in range(5))
    assert found.learned_tokens == answers + len(chatml.encode("naïve text, " * 20))  # the first is not, EOS is
    assert found.lengths[0.0] == min(len(one.ids) for one in encoded.sequences) and found.lengths[1.0] == 61
    assert found.lengths[0.0] <= found.lengths[0.5] <= found.lengths[0.9] <= found.lengths[1.0]
    places = sum((batch[2] >= 0).sum() for batch in batches.in_order())
    assert found.fill == places / (len(batches.rows) * 60) and found.rows == len(batches.rows)
    assert (
        [cut.where for cut in found.left_out] == ["line 5"] and found.cut == [] and isinstance(found.left_out[0], Cut)
    )
    assert len(found.samples) == 3 and found.samples[0].where == "line 0"


def test_samples_show_what_is_learned(chatml, asked):
    encoded = encode_examples([Conversation("a", asked("Who? 🙂", "naïve 日本", "So?", "Yes"))], chatml, 100)
    (sample,) = summarize(encoded, ExampleBatches(encoded.sequences, 1, 100), chatml).samples
    assert sample.pieces == [
        ("<|im_start|>user\nWho? 🙂<|im_end|>\n<|im_start|>assistant\n", False),
        ("naïve 日本<|im_end|>", True),
        ("\n<|im_start|>user\nSo?<|im_end|>\n<|im_start|>assistant\n", False),
        ("Yes<|im_end|>", True),
    ]
