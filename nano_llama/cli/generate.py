"""`nano-llama generate`: continue a prompt, token by token, in the terminal or as JSON.

Not here: conversations (chat.py). Tests: tests/cli/test_generate.py.
"""

import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter
from rich.console import RenderableType

from nano_llama.cli.adapters import find_model
from nano_llama.cli.common import Count, Output, Screen, has_colours
from nano_llama.cli.engines import Compute, Sampling, llm_arguments, load_llm
from nano_llama.cli.models import ModelPath, shown_path
from nano_llama.cli.past_context import generate_past_context
from nano_llama.cli.probabilities import NUM_LOGPROBS, probabilities_json, probability_table, tint
from nano_llama.cli.wrapped import WrappedText
from nano_llama.core.errors import UserError
from nano_llama.core.sampling import SamplingParams
from nano_llama.core.units import plural
from nano_llama.formats import reads_images
from nano_llama.formats.shipped import DEFAULT_MODEL
from nano_llama.tokenizer.image_token import IMAGE_TOKEN
from nano_llama.vol3_engine.outputs import Logprob, TextPiece

EXAMPLE = '--prompt "Once upon a time"'  # of dispatch.py


def run(
    model: ModelPath | None = None,
    *,
    adapter: Annotated[Path | None, Parameter(show_default=False)] = None,
    prompt: Annotated[str, Parameter(allow_leading_hyphen=True)],
    image: Annotated[tuple[Path, ...], Parameter(show_default=False)] = (),
    max_tokens: Count = 200,
    chat: bool = False,
    show_probabilities: bool = False,
    sampling: Sampling | None = None,
    compute: Compute | None = None,
    output: Output | None = None,
) -> int:
    """Continue a prompt.

    The text is streamed to stdout, messages go to stderr, so  > story.txt  contains the text alone.

    Parameters
    ----------
    model
        A Hugging Face folder, a .gguf, the folder of a training run, a hub name (org/name), or a short one: nano_gpt,
        smollm2-135m ... By default the model that --adapter was trained on, else nano_gpt.
    adapter
        An adapter of the model, in PEFT's format: a folder with adapter_config.json.
    prompt
        The text to continue;  -  reads it from stdin (without the newline at its end).
    image
        A picture that the model reads where the prompt says <image>; a prompt that does not say it begins with it.
        Several: --image A --image B.
    max_tokens
        Stop after this many new tokens if the model does not end by itself.
    chat
        Format the prompt as a user message with the model's chat template (instruct models).
    show_probabilities
        Print below the text the model's own probability of each token and its likeliest alternatives; the text is
        coloured by surprisal.
    """
    screen = Screen(output)
    params = (sampling or Sampling()).params(max_tokens)
    if show_probabilities:
        params = params.replace(logprobs=NUM_LOGPROBS)
    text = read_prompt(screen) if prompt == "-" else prompt
    check_text(text, "--prompt")
    if image and not chat and IMAGE_TOKEN not in text:
        text = IMAGE_TOKEN * len(image) + text
    compute = compute or Compute()
    llm_arguments(compute)  # refuses what contradicts itself before anything is said
    path = find_model(model, adapter, screen, DEFAULT_MODEL)
    used = model or (DEFAULT_MODEL if adapter is None else shown_path(path))
    if image and not reads_images(path):
        raise UserError(
            f"--image {image[0]}: {used} reads text only.",
            hint="Give --model a run of  nano-llama train --preset eyes-cpu,  or a folder of Idefics3 or SmolVLM.",
        )
    screen.say(f"Loading {used}{f' with {adapter}' if adapter else ''} ...", style="dim")
    llm = load_llm(path, compute, adapter=adapter)
    context = llm.config.max_position_embeddings
    if max_tokens > context:
        slides = not (chat or image)
        screen.say(past_context_hint(max_tokens, context, slides), "dim")
    shown = WrappedText(screen.out)
    if screen.out.is_terminal and not (chat or screen.json):
        shown.write(text, "bold")
        shown.show()
    windows: list[int] = []  # how many tokens each later window of a long text began with
    if chat:
        pictures = [{"type": "image", "image": file} for file in image]
        content = [*pictures, {"type": "text", "text": text}] if pictures else text
        pieces = llm.stream([{"role": "user", "content": content}], params)
    elif image:
        pieces = llm.stream({"prompt": text, "images": list(image)}, params)
    else:
        pieces = generate_past_context(llm, text, params, on_full=windows.append)
    result, logprobs = stream_to_screen(pieces, None if screen.json else shown)
    below: list[RenderableType] = []
    if logprobs is not None:
        assert llm.tokenizer is not None, "a text prompt has been encoded"
        result["probabilities"] = probabilities_json(llm.tokenizer, logprobs)
        below = probability_table(screen, llm.tokenizer, logprobs, params)
    screen.result(
        {"model": used, "adapter": adapter, "prompt": text, "images": [str(file) for file in image], **result}, *below
    )
    screen.say(speed_line(result, params), style="dim")
    if windows:
        screen.say(
            f"(The context of {context:,} tokens was full {plural(len(windows), 'time')}; each time the model "
            f"continued from the last {windows[0]:,} tokens only.)",
            style="dim",
        )
    return 0


def past_context_hint(max_tokens: int, context: int, slides: bool) -> str:
    """What comes of more tokens than the model can see. slides: what past_context.py does, instead of ending."""
    then = (
        f"whenever it is full, the model continues from the last {context // 2:,} alone and forgets the rest, so that"
        " a small one soon repeats itself. Ctrl-C stops it."
        if slides
        else "the text ends where it is full."
    )
    return f"--max-tokens {max_tokens:,} is more than the model's context of {context:,} tokens: {then}"


def stream_to_screen(
    pieces: Iterator[TextPiece], shown: WrappedText | None
) -> tuple[dict[str, Any], list[dict[int, Logprob]] | None]:
    """Print the pieces as they come (None: print nothing); return the text and its figures, and its logprobs. Pieces
    that have logprobs are coloured by surprisal, where the screen has colours.
    """
    began = time.perf_counter()
    first, last = began, None
    try:
        for count, piece in enumerate(pieces):
            if count == 0:
                first = time.perf_counter()
            if shown is not None:
                shown.write(piece.text, tint(piece.logprobs) if has_colours(shown.console) else None)
            last = piece
        ended = time.perf_counter()
    finally:  # after Ctrl-C and errors too, so that the next message begins a line
        if last is not None and shown is not None:
            shown.end()
    assert last is not None and last.output is not None, "a stream ends with the whole result"
    done = last.output.outputs[0]
    figures = {
        "text": done.text,
        "token_ids": done.token_ids,
        "finish_reason": done.finish_reason,
        "prompt_tokens": len(last.output.prompt_token_ids),
        "new_tokens": len(done.token_ids),
        "seed": done.seed,
        "prompt_seconds": first - began,
        "seconds": ended - began,
        "tokens_per_second": speed(len(done.token_ids), ended - first),
    }
    return figures, done.logprobs


def speed(tokens: int, seconds_after_first: float) -> float | None:
    """Decode tokens/s: the first token counts as prefill. None if there was only one."""
    return (tokens - 1) / seconds_after_first if tokens > 1 and seconds_after_first > 0 else None


def speed_line(result: dict[str, Any], params: SamplingParams) -> str:
    """Time and speed, in one line."""
    rate = result["tokens_per_second"]
    parts = [
        f"{plural(result['prompt_tokens'], 'prompt token')} in {result['prompt_seconds']:.2f} s",
        plural(result["new_tokens"], "new token") + (f" at {rate:,.1f} tokens/s" if rate else ""),
        ended(result["finish_reason"], result["new_tokens"], params),
        "greedy" if params.is_greedy else f"seed {result['seed']}",
    ]
    return "[" + ", ".join(parts) + "]"


def ended(finish_reason: str, new_tokens: int, params: SamplingParams) -> str:
    """Why a text is over, in words."""
    if finish_reason == "length":
        return "stopped at --max-tokens" if new_tokens == params.max_tokens else "the model's context was full"
    return "stopped at --stop or the end of the text" if params.stop else "reached the end of the text"


def read_prompt(screen: Screen) -> str:
    """The prompt from stdin, without the newline that `echo` adds."""
    if sys.stdin.isatty():
        screen.say("Type the prompt; end it with Ctrl-D on an empty line.", style="dim")
    try:
        return sys.stdin.read().removesuffix("\n")
    except UnicodeDecodeError as error:
        raise UserError(f"The prompt on stdin is not UTF-8 text ({error}).") from None


def check_text(text: str, option: str) -> None:
    """Raise UserError for an empty text, and for bytes that are not UTF-8 (a shell may pass such)."""
    if not text:
        raise UserError(f"{option} is empty.", hint="Give some text to begin with.")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise UserError(f"{option} holds bytes that are not UTF-8 text, at position {error.start}.") from None
