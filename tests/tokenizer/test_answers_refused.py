"""What of a conversation cannot be learned exactly is refused, and the error says what to do."""

import pytest
from tokenizers import Tokenizer as Library

from helpers.chat_formats import FORMATS, ChatFormat
from nano_llama.core.errors import UserError
from nano_llama.tokenizer import Tokenizer
from nano_llama.tokenizer.answers import AnswerEncoder
from nano_llama.tokenizer.gguf import from_metadata

USER, ANSWER = {"role": "user", "content": "What is it?"}, {"role": "assistant", "content": "The dog."}
SYSTEM = {"role": "system", "content": "Be brief."}
CHATML = FORMATS["chatml"]
PROMPT = "{% if add_generation_prompt %}<|im_start|>assistant{{ '\n' }}{% endif %}"


def encoder(bpe, template=CHATML.template, marked=False) -> AnswerEncoder:
    chat = ChatFormat(template, CHATML.write, CHATML.end, CHATML.special)
    return AnswerEncoder(chat.tokenizer(Library.from_str(bpe.backend.source), marked))


@pytest.mark.parametrize(
    ("messages", "cause"),
    [
        ([USER], "No message is the assistant's"),
        ([SYSTEM, USER], "No message is the assistant's"),
        ([USER, ANSWER, USER], "last message .* 'user'"),
        ([ANSWER], "Message 0 is the assistant's and the first"),
        ([ANSWER, USER, ANSWER], "Message 0 is the assistant's and the first"),
        ([USER, ANSWER, ANSWER], "Message 2 is the assistant's and after another"),
        ([USER, SYSTEM, ANSWER], "Message 1 has the role 'system'"),
        ([USER, {**ANSWER, "content": ""}], "Message 1 .* is empty"),
        ([USER, {**ANSWER, "content": " \n"}], "Message 1 .* is empty"),
        ([USER, {**ANSWER, "tool_calls": [{"name": "x"}]}], "'tool_calls', which the chat template does not read"),
        (
            [USER, {**ANSWER, "reasoning_content": "Hm."}],
            "The thinking of message 1|The reasoning_content of message 1",
        ),
        ([USER, {**ANSWER, "weight": 0}], "'weight': 0"),
        ([{"content": "Hello"}, ANSWER], "role None"),
        ([{"role": "human", "content": "Hello"}, ANSWER], "'human'"),
    ],
)
def test_wrong_conversations(bpe, messages, cause):
    with pytest.raises(UserError, match=cause) as caught:
        encoder(bpe).conversation(messages)
    assert caught.value.hint


def test_tools_that_the_template_does_not_read(bpe):
    with pytest.raises(UserError, match="does not read 'tools'"):
        encoder(bpe).conversation([USER, ANSWER], tools=[{"name": "clock"}])


def test_tools_and_calls_that_it_reads(bpe):
    template = (
        "{% for t in tools or [] %}{{ t.name }}{% endfor %}{% for m in messages %}<|im_start|>{{ m.role + '\n' }}"
        "{{ m.content or m.tool_calls[0].name }}<|im_end|>{% endfor %}" + PROMPT
    )
    call = {"role": "assistant", "tool_calls": [{"name": "clock"}]}
    one = encoder(bpe, template)
    (found,) = one.conversation([USER, call, {"role": "tool", "content": "12"}, ANSWER], tools=[{"name": "clock"}])
    ids = [i for i, learned in zip(found.ids, found.learned, strict=True) if learned]
    assert one.tokenizer.decode(ids, skip_special=False) == "clock<|im_end|>The dog.<|im_end|>"


@pytest.mark.parametrize(
    ("template", "cause"),
    [
        ("{% for m in messages %}<|im_start|>{{ m.role }}:{{ m.content }}<|im_end|>{% endfor %}", "generation prompt"),
        ("{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}" + PROMPT, "begins message 1"),
        (
            "{% for m in messages %}<|im_start|>{{ m.role + '\n' + m.content + '\n' }}{% endfor %}" + PROMPT,
            "no token after an answer",
        ),
        (
            "{% for m in messages %}<|im_start|>{{ m.role + '\n' + m.content }}<|im_end|>!{% endfor %}" + PROMPT,
            "goes on after '<|im_end|>'",
        ),
        (
            "{{ bos_token }}{{ bos_token }}{% for m in messages %}<|im_start|>{{ m.role + '\n' + m.content }}<|im_end|>"
            "{% endfor %}" + PROMPT,
            "'<s>' twice",
        ),
        (
            "{% for m in messages %}{% if m.role != 'user' %}<|im_start|>{{ m.role + '\n' + m.content }}<|im_end|>"
            "{% endif %}{% endfor %}" + PROMPT,
            "content of message 0 .user. is not in",
        ),
        (
            "{% for m in messages %}<|im_start|>{{ m.role + '\n' }}{% if m.role == 'assistant' %}"
            "{{ m.content.split('</think>')[-1] }}{% else %}{{ m.content }}{% endif %}<|im_end|>{% endfor %}" + PROMPT,
            "content of message 1 .assistant. is not in",
        ),
    ],
)  # fmt: skip
def test_templates_that_leave_it_open(bpe, template, cause):
    answer = {**ANSWER, "content": "<think>Hm.</think>The dog."}
    with pytest.raises(UserError, match=cause.replace("|", r"\|")) as caught:
        encoder(bpe, template).conversation([USER, answer])
    assert caught.value.hint


@pytest.mark.parametrize(
    ("body", "cause"),
    [
        ("{{ m.content }}", "no {% generation %} block"),
        ("{% generation %}{{ m.content[:5] }}{% endgeneration %}{{ m.content[5:] }}", "within a token"),
        ("{% generation %}a{% generation %}{{ m.content }}{% endgeneration %}{% endgeneration %}", "be followed"),
        ("{% set x %}{% generation %} {{ m.content }}{% endgeneration %}{% endset %}{{ x | trim }}", "be followed"),
    ],
)  # fmt: skip
def test_blocks_that_cannot_be_followed(bpe, body, cause):
    unused = "{% if m.role == 'critic' %}{% generation %}x{% endgeneration %}{% endif %}"
    template = (
        "{% for m in messages %}<|im_start|>{{ m.role + '\n' }}{% if m.role == 'assistant' %}"
        f"{body}{{% else %}}{{{{ m.content }}}}{{% endif %}}<|im_end|>{unused}{{% endfor %}}{PROMPT}"
    )
    with pytest.raises(UserError, match=cause):
        encoder(bpe, template).conversation([USER, ANSWER])


def test_the_generation_variables_are_not_the_callers(bpe):
    """They are how blocks are found, and no names that a template reads."""
    with pytest.raises(UserError, match="does not read 'generation_begins'"):
        encoder(bpe, marked=True).conversation([USER, ANSWER], generation_begins="x")


def test_an_answer_that_sentencepiece_cannot_encode_apart(sentencepiece_metadata):
    """Its words begin with their space, so "A:" + " dog" and "A: " + "dog" differ, and only the first can be served."""
    library = Library.from_str(Tokenizer(*from_metadata(sentencepiece_metadata)).backend.source)
    tokenizer = FORMATS["llama2"].tokenizer(library)
    assert AnswerEncoder(tokenizer).completion("The fox:", " the dog").num_learned > 1
    with pytest.raises(UserError, match="one token with the end of its prompt"):
        AnswerEncoder(tokenizer).completion("The fox: ", "the dog")


def test_without_eos_or_prompt(char, bpe):
    for ask in (lambda: AnswerEncoder(char).text("The"), lambda: AnswerEncoder(char).completion("The", " dog")):
        with pytest.raises(UserError, match="no EOS"):
            ask()
    with pytest.raises(UserError, match="prompt is empty"):
        AnswerEncoder(bpe).completion("", "dog")


def test_without_a_template(bpe):
    with pytest.raises(UserError, match="no chat template") as caught:
        AnswerEncoder(bpe).conversation([USER, ANSWER])
    assert "completion" in caught.value.hint
