"""/inspect/...: what the page shows of the model and the engine that serve. The API's rules for keys and origins hold,
and no answer has text of another client.

    model.py    /inspect/model      what is served, and what of it can be looked at
    tokens.py   /inspect/tokens     a text or a conversation as ids, with their bytes and merges
    next_token.py  /inspect/next    the distribution of the next token, what the sampler leaves of it, the draw
    events.py   /inspect/events     the engine's steps, as they happen
    roofline.py    /inspect/roofline    the bytes that a step reads, and how fast this machine's memory delivers them
    replay.py   /inspect/replay     inside the model, by Volume 1: lens, attention, attribution
    volumes.py  /inspect/volumes    one position's logits by the engine, Volume 1 and Volume 2
    source.py   /inspect/source     the lines of Volume 1 that a replay runs
    limits.py   schemas.py          how much one question may cost, and what it may say

Tests: tests/server/page.
"""

from starlette.routing import Route

from nano_llama.server.inspection.events import events
from nano_llama.server.inspection.model import REPLAY, ROOFLINE, VOLUMES, model
from nano_llama.server.inspection.next_token import next_token
from nano_llama.server.inspection.replay import replay
from nano_llama.server.inspection.roofline import roofline
from nano_llama.server.inspection.source import source
from nano_llama.server.inspection.tokens import tokens
from nano_llama.server.inspection.volumes import volumes

ROUTES = [
    Route("/inspect/model", model),
    Route("/inspect/tokens", tokens, methods=["POST"]),
    Route("/inspect/next", next_token, methods=["POST"]),
    Route("/inspect/events", events, methods=["POST"]),
    Route(ROOFLINE, roofline, methods=["GET", "POST"]),
    Route(REPLAY, replay, methods=["POST"]),
    Route(VOLUMES, volumes, methods=["POST"]),
    Route("/inspect/source", source),
]
