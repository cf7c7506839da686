"""The HTTP server: OpenAI's API over an AsyncEngine. Needs the extra `serve`, and no torch.

    run.py        from a free port to the last answer      protocol.py   deadlines and limits of connections
    app.py        what every request passes                hosts.py      names and web pages that may call; auth.py
    bodies.py     JSON in, within its limits               streaming.py  answers out, to clients that may leave
    errors.py     every failure in OpenAI's shape          service.py    what the handlers of requests need
    settings.py   every limit, with its default            metrics.py, logs.py   what the operator sees

The API, endpoint by endpoint; a body goes from schemas.py through validation.py and parameters.py to the engine:

    completions.py, completion_answer.py      /v1/completions           tokenization.py   /tokenize and its like
    chat.py, chat_answer.py                   /v1/chat/completions      models.py         /v1/models; adapters.py
    tools.py, tool_calls.py                   tools, and their calls    openapi.py        /openapi.json
    answering.py, usage.py, logprobs.py       for every answer          openapi_answers.py

The page at /: page_files.py sends the files of page/, which ask the endpoints of inspection/;
feed.py hands the engine's events to those who listen, and
replayer.py has Volume 1 compute again what the engine computed.

Tests: tests/server.
"""
