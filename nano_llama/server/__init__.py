"""The HTTP server: OpenAI's API over an AsyncEngine. Needs the extra `serve`, and no torch.

    run.py        from a free port to the last answer      protocol.py   deadlines and limits of connections
    app.py        what every request passes                hosts.py      names and web pages that may call; auth.py
    bodies.py     JSON in, within its limits               streaming.py  answers out, to clients that may leave
    errors.py     every failure in OpenAI's shape          service.py    what the handlers of requests need
    settings.py   every limit, with its default            metrics.py, logs.py   what the operator sees

Tests: tests/server.
"""
