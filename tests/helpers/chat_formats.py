"""Chat formats, each written twice: as a template, and as a function of Python that says which text is an answer's.

G ... E in a template stand for {% generation %} ... {% endgeneration %}, or for nothing.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from tokenizers import AddedToken
from tokenizers import Tokenizer as Library

from nano_llama.tokenizer import Tokenizer
from nano_llama.tokenizer.backend import Backend
from nano_llama.tokenizer.roles import Roles

Pieces = list[tuple[str, bool]]  # text, and whether it is an answer with its end mark
Messages = Sequence[Mapping[str, str]]
GENERATE = "{% if add_generation_prompt %}"


@dataclass(frozen=True)
class ChatFormat:
    template: str
    write: Callable[[Messages], Pieces]
    end: str  # the token that ends an answer
    special: tuple[str, ...] = ()
    system: bool = True

    def source(self, marked: bool) -> str:
        begin, end = ("{% generation %}", "{% endgeneration %}") if marked else ("", "")
        return self.template.replace("«", begin).replace("»", end)

    def tokenizer(self, library: Library, marked: bool = False) -> Tokenizer:
        library = Library.from_str(library.to_str())
        for name in ("<s>", "</s>", *self.special):
            library.add_special_tokens([AddedToken(name, special=True, normalized=False)])
        end = "</s>" if self.end not in self.special else self.end
        roles = Roles(bos=library.token_to_id("<s>"), eos=library.token_to_id(end))
        return Tokenizer(Backend(library), roles, self.source(marked))


def _turns(begin: str, end: str, names: Mapping[str, str] | None = None, first: str = "", after: str = "\n"):
    """The many formats that write each message alike."""

    def write(messages: Messages) -> Pieces:
        pieces = [(first, False)]
        for message in messages:
            role = (names or {}).get(message["role"], message["role"])
            pieces.append((begin.format(role), False))
            pieces.append((message["content"].strip() + end, message["role"] == "assistant"))
            pieces.append((after, False))
        return pieces

    return write


def _write_smollm2(messages: Messages) -> Pieces:
    default = [] if messages[0]["role"] == "system" else [{"role": "system", "content": "You are helpful."}]
    return _turns("<|im_start|>{}\n", "<|im_end|>")([*default, *messages])


def _write_llama2(messages: Messages) -> Pieces:
    pieces, system = [], ""
    for message in messages:
        text = message["content"].strip()
        if message["role"] == "system":
            system = f"<<SYS>>\n{text}\n<</SYS>>\n\n"
        elif message["role"] == "user":
            pieces.append((f"<s>[INST] {system}{text} [/INST]", False))
            system = ""
        else:
            pieces.append((f" {text} </s>", True))
    return pieces


def _write_mistral(messages: Messages) -> Pieces:
    """The system message stands in the last question, so it is given with one question here."""
    system = "".join(message["content"] + "\n\n" for message in messages if message["role"] == "system")
    pieces: Pieces = [("<s>", False)]
    for message in messages:
        if message["role"] == "user":
            pieces.append((f"[INST] {system}{message['content']}[/INST]", False))
        elif message["role"] == "assistant":
            pieces.append((f" {message['content']}</s>", True))
    return pieces


FORMATS = {
    "chatml": ChatFormat(
        "{% for m in messages %}<|im_start|>{{ m.role + '\n' }}{% if m.role == 'assistant' %}"
        "«{{ m.content + '<|im_end|>' }}»{% else %}{{ m.content + '<|im_end|>' }}{% endif %}{{ '\n' }}{% endfor %}"
        f"{GENERATE}{{{{ '<|im_start|>assistant\n' }}}}{{% endif %}}",
        _turns("<|im_start|>{}\n", "<|im_end|>"), "<|im_end|>", ("<|im_start|>", "<|im_end|>"),
    ),
    "smollm2": ChatFormat(
        "{% for m in messages %}{% if loop.first and m.role != 'system' %}"
        "{{ '<|im_start|>system\nYou are helpful.<|im_end|>\n' }}{% endif %}<|im_start|>{{ m.role + '\n' }}"
        "{% if m.role == 'assistant' %}«{{ m.content }}<|im_end|>»{% else %}{{ m.content }}<|im_end|>{% endif %}"
        f"{{{{ '\n' }}}}{{% endfor %}}{GENERATE}{{{{ '<|im_start|>assistant\n' }}}}{{% endif %}}",
        _write_smollm2, "<|im_end|>", ("<|im_start|>", "<|im_end|>"),
    ),
    "llama2": ChatFormat(
        "{% set ns = namespace(system='') %}{% for m in messages %}{% if m.role == 'system' %}"
        "{% set ns.system = '<<SYS>>\n' + m.content.strip() + '\n<</SYS>>\n\n' %}{% elif m.role == 'user' %}"
        "{{ bos_token + '[INST] ' + ns.system + m.content.strip() + ' [/INST]' }}{% set ns.system = '' %}{% else %}"
        "«{{ ' ' + m.content.strip() + ' ' + eos_token }}»{% endif %}{% endfor %}",
        _write_llama2, "</s>",
    ),
    "llama3": ChatFormat(
        "{{ bos_token }}{% for m in messages %}{{ '<|start_header_id|>' + m.role + '<|end_header_id|>\n\n' }}"
        "{% if m.role == 'assistant' %}«{{ m.content | trim + '<|eot_id|>' }}»{% else %}"
        f"{{{{ m.content | trim + '<|eot_id|>' }}}}{{% endif %}}{{% endfor %}}{GENERATE}"
        "{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}",
        _turns("<|start_header_id|>{}<|end_header_id|>\n\n", "<|eot_id|>", first="<s>", after=""), "<|eot_id|>",
        ("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),
    ),
    "mistral": ChatFormat(
        "{{ bos_token }}{% set system = '' %}{% if messages[0].role == 'system' %}"
        "{% set system = messages[0].content + '\n\n' %}{% endif %}{% set last = (messages | selectattr('role', "
        "'equalto', 'user') | list)[-1] %}{% for m in messages %}{% if m.role == 'user' %}{{ '[INST] ' }}"
        "{% if m == last %}{{ system }}{% endif %}{{ m.content + '[/INST]' }}{% elif m.role == 'assistant' %}"
        "«{{ ' ' + m.content + eos_token }}»{% endif %}{% endfor %}",
        _write_mistral, "</s>",
    ),
    "gemma": ChatFormat(
        "{{ bos_token }}{% if messages[0].role == 'system' %}{{ raise_exception('No system message.') }}{% endif %}"
        "{% for m in messages %}{% set role = 'model' if m.role == 'assistant' else m.role %}"
        "{{ '<start_of_turn>' + role + '\n' }}{% if m.role == 'assistant' %}«{{ m.content | trim + '<end_of_turn>' }}»"
        "{% else %}{{ m.content | trim + '<end_of_turn>' }}{% endif %}{{ '\n' }}{% endfor %}"
        f"{GENERATE}{{{{ '<start_of_turn>model\n' }}}}{{% endif %}}",
        _turns("<start_of_turn>{}\n", "<end_of_turn>", {"assistant": "model"}, first="<s>"), "<end_of_turn>",
        ("<start_of_turn>", "<end_of_turn>"), system=False,
    ),
    "zephyr": ChatFormat(
        "{% for m in messages %}{{ '<|' + m.role + '|>\n' }}{% if m.role == 'assistant' %}«{{ m.content + eos_token }}»"
        f"{{% else %}}{{{{ m.content + eos_token }}}}{{% endif %}}{{{{ '\n' }}}}{{% endfor %}}{GENERATE}"
        "{{ '<|assistant|>\n' }}{% endif %}",
        _turns("<|{}|>\n", "</s>"), "</s>",
    ),
    "phi3": ChatFormat(
        "{% for m in messages %}{{ '<|' + m.role + '|>\n' }}{% if m.role == 'assistant' %}«{{ m.content + '<|end|>' }}»"
        f"{{% else %}}{{{{ m.content + '<|end|>' }}}}{{% endif %}}{{{{ '\n' }}}}{{% endfor %}}{GENERATE}"
        "{{ '<|assistant|>\n' }}{% else %}{{ eos_token }}{% endif %}",
        _turns("<|{}|>\n", "<|end|>"), "<|end|>", ("<|system|>", "<|user|>", "<|assistant|>", "<|end|>"),
    ),
}  # fmt: skip

# Qwen's way with reasoning: shown in answers after the last question, cut from earlier ones.
REASONING = ChatFormat(
    "{% set ns = namespace(last=0) %}{% for m in messages %}{% if m.role == 'user' %}{% set ns.last = loop.index0 %}"
    "{% endif %}{% endfor %}{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' }}{% if m.role == 'assistant' %}"
    "«{% if loop.index0 > ns.last %}{{ '<think>\n' + (m.reasoning_content or '') + '\n</think>\n\n' }}{% endif %}"
    "{{ m.content + '<|im_end|>' }}»{% else %}{{ m.content + '<|im_end|>' }}{% endif %}{{ '\n' }}{% endfor %}"
    f"{GENERATE}{{{{ '<|im_start|>assistant\n' }}}}{{% endif %}}",
    _turns("<|im_start|>{}\n", "<|im_end|>"), "<|im_end|>", ("<|im_start|>", "<|im_end|>"),
)  # fmt: skip
