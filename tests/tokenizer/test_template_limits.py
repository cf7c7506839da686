"""Hostile chat templates: each ends within seconds in our error, the memory stays, and the next template works."""

import os
import resource
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from nano_llama.core.errors import FormatError, NanoLlamaError, UserError
from nano_llama.tokenizer import chat
from nano_llama.tokenizer.chat import ChatTemplate

MESSAGES = {"messages": [{"role": "user", "content": "x"}]}
MORE = "{% set n = namespace(s=[1], t=[1]) %}{% for i in range(60) %}{% set n.s = [n.s, n.s] %}"
LOOP = "{% for a in range(99999) %}{% for b in range(99999) %}{% for c in range(99999) %}"

HOSTILE = {
    "a loop without a body": LOOP + "{% endfor %}{% endfor %}{% endfor %}",
    "a loop that prints": LOOP + "{{ 'x' * 1000 }}{% endfor %}{% endfor %}{% endfor %}",
    "a loop with a false condition": LOOP.replace("c in range(99999)", "c in range(99999) if false")
    + "{% endfor %}" * 3,
    "a range too long": "{% for a in range(10**12) %}{% endfor %}",
    "a string multiplied": "{{ 'x' * 10**10 }}",
    "a string multiplied in the dark": "{% if ('x' * 10**10)|length > 3 %}{% endif %}",
    "a list multiplied": "{% set x = [0] * 10**10 %}",
    "a large power": "{% set x = 3**(10**9) %}",
    "centred in a desert": "{{ 'x'|center(10**10) }}",
    "justified": "{{ 'x'.ljust(10**10) }}",
    "a format's width": "{{ '%10000000000d' % 1 }}",
    "a format method's width": "{{ '{:10000000000}'.format(1) }}",
    "a format filter": "{{ '%9999999999s'|format('x') }}",
    "indented without end": "{{ ('x\n' * 10**6)|indent(10**6) }}",
    "joined": "{{ (['x' * 10**5] * 10**5)|join }}",
    "replaced": "{{ ('x' * 10**6)|replace('x', 'y' * 10**6) }}",
    "doubled": "{% set n = namespace(s='x') %}{% for i in range(99) %}{% set n.s = n.s ~ n.s %}{% endfor %}{{ n.s }}",
    "a list doubled": "{% set n = namespace(s=[1]) %}{% for i in range(99) %}{% set n.s = n.s + n.s %}{% endfor %}",
    "a list of itself": MORE + "{% endfor %}{{ n.s }}",
    "the same as JSON": MORE + "{% endfor %}{{ n.s|tojson }}",
    "compared with itself": MORE + "{% set n.t = [n.t, n.t] %}{% endfor %}{{ n.s == n.t }}",
    "lorem ipsum": "{{ lipsum(n=10**7) }}",
    "a macro that calls itself": "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
    "a recursive loop": "{% for x in [[1]] recursive %}{{ loop([[1]]) }}{% endfor %}",
    "deep brackets": "{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}",
    "deep lists": "{{ " + "[" * 5000 + "]" * 5000 + " }}",
    "deep blocks": "{% if true %}" * 500 + "{% endif %}" * 500,
    "a long sum": "{{ " + "+".join(["1"] * 20000) + " }}",
    "longer than a template is": "x" * (2**20 + 1),
    "JSON indented": "{{ [[1]]|tojson(indent=10**10) }}",
    "sorted without end": "{% for i in range(9999) %}{% set x = range(99999)|sort|reverse|list %}{% endfor %}",
    "strings of numbers": "{{ (10**5000)|string }}",
    "the secrets of Python": "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "a look at the globals": "{{ raise_exception.__globals__['sys'] }}",
    "a change of a message": "{{ messages.append(1) }}",
    "a file": "{% include '/etc/passwd' %}",
    "an import": "{% import 'os' as os %}",
}


@pytest.mark.parametrize("name", sorted(HOSTILE))
def test_hostile_template_ends_in_our_error(name, monkeypatch):
    monkeypatch.setattr(chat, "RENDER_SECONDS", 1.0)  # the suite has little time; another test keeps the real 3 s
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    template = ChatTemplate(HOSTILE[name])
    start = time.monotonic()
    with pytest.raises(NanoLlamaError) as caught:
        template.render(MESSAGES)
    # Not a measurement of speed: the promise is an end. The margin is for a busy machine.
    assert time.monotonic() - start < 20
    assert "chat template" in str(caught.value).lower()
    assert isinstance(caught.value, FormatError)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100 * 1024  # KiB


def test_the_process_is_small_and_replaced_after_a_failure():
    template = ChatTemplate(
        "{% if messages[0].content == 'loop' %}" + HOSTILE["a loop without a body"] + "{% endif %}ok"
    )
    assert template.render(MESSAGES) == "ok"
    (worker,) = template._idle
    first = worker.process.popen
    assert template.render(MESSAGES) == "ok"
    assert template._idle == [worker], "one process serves many conversations"
    with pytest.raises(FormatError, match="longer than 3 s"):
        template.render({"messages": [{"role": "user", "content": "loop"}]})
    assert first.poll() is not None, "it was ended"
    assert template.render(MESSAGES) == "ok"


def test_memory_is_bounded_by_the_operating_system():
    with pytest.raises(FormatError, match="128 MiB"):
        ChatTemplate("{{ ('x' * 300000000)|length }}").render(MESSAGES)


def test_printing_is_bounded_in_proportion_to_what_goes_in():
    template = ChatTemplate("{{ messages[0].content }}{{ messages[0].content }}")
    long = "y" * 3_000_000
    assert template.render({"messages": [{"content": long}]}) == long * 2
    with pytest.raises(FormatError, match="prints more than"):
        ChatTemplate("{% for i in range(9000) %}{{ 'x' * 1000 }}{% endfor %}").render(MESSAGES)


def test_from_several_threads():
    template = ChatTemplate("{{ messages[0].content }}")
    found = {}

    def ask(number: int) -> None:
        for _ in range(20):
            found[number] = template.render({"messages": [{"content": str(number)}]})

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {number: str(number) for number in range(4)}


def test_a_slow_conversation_does_not_hold_up_the_next():
    template = ChatTemplate(
        "{% if messages[0].content == 'loop' %}" + HOSTILE["a loop without a body"] + "{% endif %}ok"
    )
    order = []

    def ask(content: str) -> None:
        try:
            template.render({"messages": [{"content": content}]})
        except FormatError:
            order.append("stopped")

    slow = threading.Thread(target=ask, args=("loop",))
    slow.start()
    while template._places._value == chat.MAX_WORKERS:  # until it has a process
        time.sleep(0.01)
    assert template.render({"messages": [{"content": "x"}]}) == "ok"
    order.append("next")
    slow.join()
    assert order == ["next", "stopped"]


def test_there_are_no_more_processes_than_said(monkeypatch):
    started = []
    real = chat._Worker.__init__
    monkeypatch.setattr(chat._Worker, "__init__", lambda self, source: (started.append(self), real(self, source))[1])
    template = ChatTemplate("{{ messages[0].content }}")
    ask = lambda: template.render(MESSAGES)  # noqa: E731
    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert 1 <= len(started) <= chat.MAX_WORKERS and len(template._idle) == len(started)


def test_a_hostile_template_in_a_thread(monkeypatch):
    monkeypatch.setattr(chat, "RENDER_SECONDS", 1.0)
    caught = []

    def ask() -> None:
        try:
            ChatTemplate(HOSTILE["a loop without a body"]).render(MESSAGES)
        except NanoLlamaError as error:
            caught.append(error)

    thread = threading.Thread(target=ask)
    thread.start()
    thread.join(20)
    assert len(caught) == 1


def test_the_process_goes_with_the_template_and_with_the_program():
    template = ChatTemplate("ok")
    template.render(MESSAGES)
    process = template._idle[0].process.popen
    del template
    process.wait(10)
    code = (
        "from nano_llama.tokenizer.chat import ChatTemplate; t = ChatTemplate('ok'); t.render({});"
        "print(t._idle[0].process.popen.pid, flush=True); import os; os._exit(0)"
    )
    pid = int(subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout)
    for _ in range(200):
        if ended(pid):
            return
        time.sleep(0.05)
    pytest.fail("the process outlived the program that died without a word")


def ended(pid: int) -> bool:
    """Gone, or (where nobody takes notice of orphans) dead and still in the list."""
    try:
        os.kill(pid, 0)
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (ProcessLookupError, FileNotFoundError):
        return True


def test_after_a_fork_each_side_has_its_own():
    if not hasattr(os, "fork"):
        pytest.skip("no fork here")
    code = (
        "import os; from nano_llama.tokenizer.chat import ChatTemplate;"
        "t = ChatTemplate('{{ who }}'); assert t.render({'who': 'parent'}) == 'parent';"
        "child = os.fork();"
        "ok = t.render({'who': str(child)}) == str(child);"
        "os._exit(not ok) if child == 0 else None;"
        "status = os.waitpid(child, 0)[1]; assert t.render({'who': 'x'}) == 'x';"
        "raise SystemExit(status != 0 or not ok)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_unusual_text_passes_unharmed():
    text = "\x00\x1f\u2028\u2029 \ud800 🙂 \r\n\r"
    assert ChatTemplate("{{ messages[0].content }}").render({"messages": [{"content": text}]}) == text


def test_the_users_refusal_is_the_users_error():
    with pytest.raises(UserError, match="no system role"):
        ChatTemplate("{{ raise_exception('no system role') }}").render(MESSAGES)
