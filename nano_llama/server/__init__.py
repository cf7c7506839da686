"""The HTTP server: OpenAI's API over an AsyncEngine. Needs the extra `serve`, and no torch.

    settings.py   every limit, with its default            service.py    what the handlers of requests need
    errors.py     every failure in OpenAI's shape          streaming.py  plain and streamed answers, clients that leave
    app.py        routes and middleware                    bodies.py     JSON in, within its limits

Tests: tests/server.
"""
