"""/inspect/...: what the page shows of the model and the engine that serve. The API's rules for keys and origins hold,
and no answer has text of another client.

    model.py    /inspect/model      what is served, and what of it can be looked at
    limits.py                       how much one question may cost

Tests: tests/server/page.
"""

from starlette.routing import Route

from nano_llama.server.inspection.model import model

ROUTES = [
    Route("/inspect/model", model),
]
