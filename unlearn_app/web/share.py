"""What is shared of a result: a link that fills in the concept, the method and the seed, and a
picture card with what was seen before, after forgetting and after the attack.
"""

import os
import re
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from html import escape
from pathlib import Path
from textwrap import wrap
from typing import Any
from urllib.parse import urlencode

from PIL import Image, ImageDraw, ImageFont
from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ..common.errors import OutputError
from ..common.images import BLUE, FAINT, GREEN, INK, ORANGE, open_png, png_bytes
from ..runs.findings import judge_again, read_findings
from ..runs.folder import Run
from ..settings.events import COLUMNS
from ..settings.run_config import RunConfig
from .html import render
from .pictures import address
from .run_html import headline

WIDTH, HEIGHT = 1200, 630
"""What sites that show links ask of a picture."""
SIDE, GAP, EDGE = 300, 102, 48
MARKS = {"removed": GREEN, "concealed": (180, 35, 31), "damaged": (180, 35, 31)}
"""The colour of a verdict; others are faint."""
PLACES = {
    "original": ("Before", BLUE),
    "unlearned": ("After forgetting", ORANGE),
    "relearned": ("After the attack", GREEN),
}
"""How the columns are called, and their colours."""
CARD_AT = "/card.png"
FOREIGN = re.compile(rb'<meta (?:property="og:|name="twitter:)[^>]*>\s*')
"""Gradio's own tags for other sites, which name it and not this page."""


def link(config: RunConfig) -> str:
    """The query of a link that fills in the concept, the method and the seed of a run."""
    asked = {"concept": config.concept, "seed": config.seed, "method": config.objective}
    return f"?{urlencode(asked)}"


def share(folder: Path | None, card: Path | None) -> str:
    """What the browser shows when somebody shares the run in `folder`; "" without one."""
    if folder is None or card is None:
        return ""
    config = Run.open(folder).config
    return render("share", link=link(config), card=address(card, folder.name), file=card.name)


def picture_card(run: Run) -> Image.Image:
    """The first picture that asks for the concept in every column, who won, and the counts.

    Raises:
        OutputError: a picture is damaged.
    """
    verdict = judge_again(run, read_findings(run.folder))
    said, name = headline(verdict), run.config.concept
    card = Image.new("RGB", (WIDTH, HEIGHT), "white")
    draw = ImageDraw.Draw(card)
    mark = MARKS.get(verdict.label, FAINT)
    draw.rectangle((0, 0, WIDTH, 14), fill=mark)
    draw.text((EDGE, 36), f"Forget “{name:.60}”", FAINT, _font(26))
    draw.text((EDGE, 66), said.winner, mark, _font(60))
    lines = wrap(said.sentence, 88)[:2]
    draw.multiline_text((EDGE, 142), "\n".join(lines), INK, _font(26))
    shown = {p.column: p for p in run.pictures if p.group == "forget" and p.index == 0}
    for place, column in enumerate(one for one in COLUMNS if one in shown):
        left, top = EDGE + place * (SIDE + GAP), 226
        title, color = PLACES[column]
        picture = open_png(shown[column].file).convert("RGB")
        smaller = max(picture.size) > SIDE
        way = Image.Resampling.LANCZOS if smaller else Image.Resampling.NEAREST
        card.paste(picture.resize((SIDE, SIDE), way), (left, top))
        draw.rectangle((left, top + SIDE, left + SIDE - 1, top + SIDE + 7), fill=color)
        draw.text((left, top + SIDE + 14), title, FAINT, _font(24))
        score = run.scores.get(column, {}).get("forget")
        if score and score.hits is not None:
            count = f"{score.hits}/{score.n}"
            draw.text((left + SIDE, top + SIDE + 10), count, INK, _font(34), anchor="ra")
    draw.text((WIDTH - EDGE, HEIGHT - 40), "Can it really forget?", FAINT, _font(24), anchor="ra")
    return card


@cache
def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)


def card_of(recorded: Path | None) -> Callable[[], bytes]:
    """Draws the card of the run with which the page opens, once somebody asks; b"" where
    there is none or it is damaged.
    """

    @cache
    def drawn() -> bytes:
        with suppress(OutputError):
            return png_bytes(picture_card(Run.open(recorded))) if recorded else b""
        return b""

    return drawn


def _card(request: Request) -> Response:
    content = request.app.get_blocks().card()
    return Response(content, 200 if content else 404, media_type="image/png")


def tags(title: str, says: str) -> str:
    """What other sites show of a link to the page. They ask for the whole address of the picture,
    which a Space knows.
    """
    host = os.environ.get("SPACE_HOST", "").split(",")[0].strip()
    url = f"https://{host}{CARD_AT}" if host else CARD_AT
    properties = {"type": "website", "title": title, "description": says, "image": url}
    properties |= {"image:width": str(WIDTH), "image:height": str(HEIGHT)}
    return (
        f'<meta name="description" content="{escape(says)}">'
        + "".join(
            f'<meta property="og:{name}" content="{escape(value)}">'
            for name, value in properties.items()
        )
        + '<meta name="twitter:card" content="summary_large_image">'
    )


class OwnTags:
    """ASGI middleware that puts the page's own tags for other sites in place of Gradio's, which
    adds what is in `head` only once scripts run, as other sites let none do.
    """

    def __init__(self, app: ASGIApp, tags: str) -> None:
        self._app, self._tags = app, tags.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve the request; of the page itself, the changed text."""
        if scope["type"] != "http" or scope["method"] != "GET" or scope["path"] != "/":
            await self._app(scope, receive, send)
            return
        begun: list[Message] = []
        body = bytearray()

        async def changed(message: Message) -> None:
            if message["type"] == "http.response.start":
                begun.append(message)
                return
            body.extend(message.get("body", b""))
            if message.get("more_body"):
                return
            headers = MutableHeaders(scope=begun[0])
            text = bytes(body)
            if headers.get("content-type", "").startswith("text/html"):
                text = FOREIGN.sub(b"", text).replace(b"</head>", self._tags + b"</head>", 1)
                headers["content-length"] = str(len(text))
            await send(begun[0])
            await send({"type": "http.response.body", "body": text})

        plain = [(name, value) for name, value in scope["headers"] if name != b"accept-encoding"]
        await self._app(scope | {"headers": plain}, receive, changed)


ROUTES: list[Any] = [Route(CARD_AT, _card, methods=["GET"])]
"""The picture of the page that other sites show beside a link to it."""
