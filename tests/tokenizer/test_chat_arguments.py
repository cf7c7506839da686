"""What a caller hands to a chat template arrives there, as in transformers, or is refused by name."""

import copy

import pytest

from nano_llama.core.errors import UserError
from nano_llama.tokenizer import Tokenizer

from .conftest import CHATML

CHAT = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Sure, the"}]


@pytest.fixture(scope="module")
def pair(bpe, tmp_path_factory):
    """template -> our tokenizer with it, and transformers' over the same files."""
    transformers = pytest.importorskip("transformers")
    folder = tmp_path_factory.mktemp("chat")
    bpe.save_pretrained(folder)
    theirs = transformers.AutoTokenizer.from_pretrained(folder)

    def make(template):
        other = copy.copy(theirs)
        other.chat_template = template
        return Tokenizer(bpe.backend, bpe.roles, template), other

    return make


def theirs_text(theirs, chat, **given):
    return theirs.apply_chat_template(copy.deepcopy(chat), tokenize=False, **given)


@pytest.mark.parametrize(
    "name",
    ["enable_thinking", "tokenize", "padding", "return_tensors", "add_generation_promt", "custom", "bos_token"],
)
def test_a_variable_that_the_template_does_not_read_is_refused(bpe, name):
    tokenizer = Tokenizer(bpe.backend, chat_template=CHATML)
    for ask in (tokenizer.apply_chat_template, tokenizer.encode_chat):
        with pytest.raises(UserError, match=f"does not read '{name}'"):
            ask(CHAT, **{name: True})


@pytest.mark.parametrize("given", [{"tools": [{"name": "f"}]}, {"documents": [{"title": "t", "text": "x"}]}])
def test_tools_and_documents_that_the_template_does_not_read_are_refused(bpe, given):
    with pytest.raises(UserError, match="does not read"):
        Tokenizer(bpe.backend, chat_template=CHATML).apply_chat_template(CHAT, **given)
    assert Tokenizer(bpe.backend, chat_template=CHATML).apply_chat_template(CHAT, tools=None, documents=[])


@pytest.mark.parametrize(
    "template",
    [
        "{{ tone }}",
        "{% if tone is defined and tone %}{{ tone }}{% endif %}",
        "{% if not tone is defined %}{% set tone = 'dry' %}{% endif %}{{ tone }}",
        "{% macro said() %}{{ tone }}{% endmacro %}{{ said() }}",
        "{% for m in messages %}{% if loop.first %}{{ tone | default('dry') }}{% endif %}{% endfor %}",
    ],
)
def test_a_variable_that_the_template_reads_in_any_way_arrives(pair, template):
    ours, theirs = pair(template)
    assert ours.apply_chat_template(CHAT, tone="warm") == theirs_text(theirs, CHAT, tone="warm") == "warm"


# -- the last message left open ---------------------------------------------------------------------------------------

TRIMMING = CHATML.replace("message['content']", "message['content'] | trim")
THINKING = "{% for m in messages %}[{{ m.reasoning_content }}]{{ m.content }}<|endoftext|>{% endfor %}"
PARTS = "{% for m in messages %}{% for part in m.content %}{{ part.text }}{% endfor %}<|endoftext|>{% endfor %}"


@pytest.mark.parametrize("template", [CHATML, TRIMMING])
@pytest.mark.parametrize("ending", ["Sure, the", "Sure, the  ", "", "  ", "a<|endoftext|>", "\n"])
def test_a_continued_message_is_that_of_transformers(pair, template, ending):
    ours, theirs = pair(template)
    chat = [CHAT[0], {"role": "assistant", "content": ending}]
    expected = theirs_text(theirs, chat, continue_final_message=True)
    assert ours.apply_chat_template(chat, continue_final_message=True) == expected
    assert ours.decode(ours.encode_chat(chat, continue_final_message=True), skip_special=False) == expected
    assert ours.encode_chat(chat, continue_final_message=True).count(0) == 0


@pytest.mark.parametrize("field", ["reasoning_content", "thinking"])
def test_another_field_may_be_continued(pair, field):
    ours, theirs = pair(THINKING)
    chat = [CHAT[0] | {"reasoning": "?"}, {"role": "assistant", "content": "", field: "Hm, 2"}]
    expected = theirs_text(theirs, chat, continue_final_message=field)
    assert ours.apply_chat_template(chat, continue_final_message=field) == expected == "[?]Hi<|endoftext|>[Hm, 2"


def test_parts_may_be_continued(pair):
    ours, theirs = pair(PARTS)
    chat = [{"role": "assistant", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}]
    expected = theirs_text(theirs, chat, continue_final_message=True)
    assert ours.apply_chat_template(chat, continue_final_message=True) == expected == "ab"


def test_messages_are_not_changed_by_being_continued(bpe):
    chat = copy.deepcopy(CHAT)
    Tokenizer(bpe.backend, chat_template=CHATML).encode_chat(chat, continue_final_message=True)
    assert chat == CHAT


@pytest.mark.parametrize(
    ("template", "given", "cause"),
    [
        (CHATML, {"continue_final_message": True, "add_generation_prompt": True}, "exclude each other"),
        (CHATML, {"continue_final_message": "thinking"}, "has no 'thinking'"),
        ("{{ messages[0].content }}", {"continue_final_message": True}, "leaves out the final message"),
        ("{% for m in messages %}{{ m.content | upper }}{% endfor %}", {"continue_final_message": True}, "changes"),
    ],
)
def test_what_cannot_be_continued_is_refused(pair, template, given, cause):
    ours, theirs = pair(template)
    with pytest.raises(UserError, match=cause):
        ours.apply_chat_template(CHAT, **given)
    with pytest.raises(ValueError, match="continue_final_message"):
        theirs_text(theirs, CHAT, **given)


# -- templates by name ------------------------------------------------------------------------------------------------


def test_a_template_may_come_with_the_call(bpe):
    tokenizer = Tokenizer(bpe.backend, chat_template={"default": "d", "rag": "{{ documents[0] }}"})
    assert tokenizer.chat_template == "d"
    assert tokenizer.apply_chat_template(CHAT) == "d"
    assert tokenizer.apply_chat_template(CHAT, chat_template="rag", documents=["x"]) == "x"
    assert tokenizer.apply_chat_template(CHAT, chat_template="{{ messages|length }}") == "2"
    with pytest.raises(UserError, match="neither a Jinja template nor the name of one") as caught:
        tokenizer.apply_chat_template(CHAT, chat_template="ragg")
    assert "default, rag" in caught.value.hint


def test_many_templates_leave_few_processes(bpe):
    tokenizer = Tokenizer(bpe.backend)
    for number in range(10):
        assert tokenizer.apply_chat_template(CHAT, chat_template=f"{{{{ {number} }}}}") == str(number)
    assert len(tokenizer.conversations._programs) == 8


def test_several_templates_without_a_default(bpe):
    tokenizer = Tokenizer(bpe.backend, chat_template={"tool_use": "{{ tools|length }}"})
    assert tokenizer.chat_template is None
    assert tokenizer.apply_chat_template(CHAT, tools=[1]) == "1"
    with pytest.raises(UserError, match="none that is the default") as caught:
        tokenizer.apply_chat_template(CHAT)
    assert "tool_use" in caught.value.hint


# -- content in parts -------------------------------------------------------------------------------------------------

TEXT_ONLY = "{% for m in messages %}{{ m.role }}: {{ m.content }}{% endfor %}"
EITHER = (
    "{% for m in messages %}{% if m.content is string %}{{ m.content }}{% else %}"
    "{% for part in m['content'] %}<{{ part['text'] }}>{% endfor %}{% endif %}{% endfor %}"
)
HELD = "{% for m in messages %}{% set c = m.content %}{% for part in c %}<{{ part.text }}>{% endfor %}{% endfor %}"
FILTERED = (
    "{% for m in messages %}{% for part in m.content | selectattr('type', 'equalto', 'text') %}<{{ part.text }}>"
    "{% endfor %}{% endfor %}"
)
HELLO = [{"role": "user", "content": [{"type": "text", "text": "hel"}, {"type": "text", "text": "lo"}]}]


@pytest.mark.parametrize("template", [PARTS, EITHER, HELD, FILTERED])
def test_a_template_that_goes_through_the_parts_gets_them(pair, template):
    ours, theirs = pair(template)
    assert ours.apply_chat_template(HELLO) == theirs_text(theirs, HELLO)


@pytest.mark.parametrize(
    "template", [TEXT_ONLY, CHATML, "{% for l in messages[0].content.split() %}{{ l }}{% endfor %}"]
)
def test_any_other_template_gets_them_joined(pair, template):
    ours, theirs = pair(template)
    whole = [{"role": "user", "content": "hello"}]
    expected = theirs_text(theirs, whole, add_generation_prompt=True)
    assert ours.apply_chat_template(HELLO) == expected
    assert ours.encode_chat(HELLO) == ours.encode_chat(whole)


@pytest.mark.parametrize(
    ("part", "cause"),
    [
        ({"type": "image_url", "image_url": {"url": "x"}}, "type 'image_url'"),
        ({"type": "image"}, "type 'image'"),
        ({"type": "input_audio"}, "type 'input_audio'"),
        ({"type": "text"}, "was expected"),
        ({"type": "text", "text": 3}, "was expected"),
        ({"text": "x"}, "was expected"),
        ("x", "was expected"),
        (None, "was expected"),
    ],
)
def test_other_parts_are_refused_by_name(bpe, part, cause):
    for template in (CHATML, PARTS):
        with pytest.raises(UserError, match=f"Message 0 .*{cause}"):
            Tokenizer(bpe.backend, chat_template=template).encode_chat([{"role": "user", "content": [part]}])


def test_what_is_none_is_left_out_as_in_transformers(pair):
    template = "{% for m in messages %}{{ m }}{% endfor %}"
    ours, theirs = pair(template)
    chat = [{"role": "user", "content": "x", "name": None}, {"role": "assistant", "content": None, "tool_calls": [1]}]
    assert ours.apply_chat_template(chat) == theirs_text(theirs, chat)
