"""Two hundred texts that would do something if a page took them for more than text; harmless ones of their shape."""

# hit(): tests/page/test_hostile_texts.py counts its calls.
PAYLOADS = (
    "<img src=x onerror=hit()>",
    "<script>hit()</script>",
    "<svg onload=hit()>",
    "<svg><script>hit()</script></svg>",
    '<iframe src="javascript:parent.hit()"></iframe>',
    '<iframe srcdoc="<script>parent.hit()</script>"></iframe>',
    "<a href=javascript:hit() autofocus onfocus=hit()>x</a>",
    "<input autofocus onfocus=hit()>",
    "<details open ontoggle=hit()>",
    "<video><source onerror=hit()></video>",
    "<style>*{display:none}</style>",
    "<link rel=stylesheet href=//evil.example/x.css>",
    '<meta http-equiv=refresh content="0;url=//evil.example">',
    "<base href=//evil.example/>",
    '<object data="data:text/html,<script>parent.hit()</script>"></object>',
    "<form action=//evil.example><button autofocus>x</button></form>",
    "<math><mtext><table><mglyph><style><img src=x onerror=hit()>",
    "<template><img src=x onerror=hit()></template>",
    "<nl-river onclick=hit()></nl-river>",
    "<!--><img src=x onerror=hit()>-->",
    "${hit()}{{hit()}}<%=hit()%>#{hit()}",
    "&lt;img src=x onerror=hit()&gt;",
    "\\u003cimg src=x onerror=hit()\\u003e",
    "javascript:hit()//__proto__",
    "\u202e\u2066exe\u200b.gpj\x00\x1b[31m\ufffd🙂<b>bold",
)
# What may stand before them, to leave an attribute, an element, a comment or a string.
OPENINGS = (
    "{}",
    '">{}',
    "'>{}",
    "</textarea>{}",
    "</title></style></script>{}",
    "--> {}",
    "]]>{}",
    '" onmouseover=hit() x="{}',
)
TEXTS = tuple(opening.replace("{}", payload) for payload in PAYLOADS for opening in OPENINGS)


def harmless(text: str) -> str:
    """As long to a browser, with the same spaces; the rest is x."""
    return "".join(c if c.isspace() else "x" * (1 + (ord(c) > 0xFFFF)) for c in text)
