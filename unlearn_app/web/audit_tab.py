"""The tab that audits what others made: a visitor sends an adapter in, the owner of the page names
a folder or a Hub id too. The result is shown in the first tab, as a run is.
"""

from collections.abc import Iterator

import gradio as gr

from ..common.errors import ConfigError, UnlearnError
from ..concepts.catalog import preview_concept
from ..models.diffusers.model_folder import public_name
from ..service.engine import Engine
from ..service.jobs import AuditRequest
from ..settings.attacks import QUICK, kinds_of
from ..settings.run_config import RunConfig, make_config
from .boundary import KEY, UPLOAD, is_owner, visitor_address
from .following import QUIET, WORKING, Updates, visitor_of
from .handlers import RunHandlers
from .html import alert, note
from .layout import BOX, START, Page
from .uploads import MAX_FILE, SUFFIX, stored

ONE = "one"
"""The first tab, in which a run is shown."""
FILE_BOX = f'''<label class="u-file">The adapter that is said to have forgotten it
<input type="file" id="audit-file" accept="{SUFFIX}"></label>'''
REFUSED = "refused: "
"""How a token begins that is none, but says why."""
SEND = f"""async (key, _sent, _name, concept, kind, place) => {{
  const file = document.querySelector("#audit-file")?.files[0];
  if (!file || place) return [key, "", "", concept, kind, place];
  const root = window.gradio_config?.root ?? "";
  const url = root + "{UPLOAD}?name=" + encodeURIComponent(file.name);
  try {{
    const answer = await fetch(url, {{method: "POST", headers: {{"{KEY}": key}}, body: file}});
    const said = await answer.json();
    const sent = answer.ok ? said.file : "{REFUSED}" + said.detail;
    return [key, sent, file.name, concept, kind, place];
  }} catch (error) {{
    return [key, "{REFUSED}The file could not be sent.", file.name, concept, kind, place];
  }}
}}"""
"""Send the file that was chosen, and go on with its token, or with why it was not taken."""
ABOUT = (
    f"A LoRA as {SUFFIX}, at most {MAX_FILE // 1024**2} MB. It is deleted when the audit is over;"
    " the audit keeps a copy as a run of yours, until you delete that."
)


class AuditTab:
    """Components and listeners; holds no state of any visitor."""

    def __init__(
        self,
        engine: Engine,
        page: Page,
        runs: RunHandlers,
        tabs: gr.Tabs,
        model: str,
        key: gr.BrowserState,
    ) -> None:
        self._engine, self._page, self._runs, self._tabs = engine, page, runs, tabs
        self._model = model
        asked = "What should it have forgotten?"
        with gr.Row(elem_id="ask-audit"):
            self.concept = gr.Textbox(label=asked, placeholder=asked, elem_id="audited", **BOX)
            self.start = gr.Button(
                "Did it really forget?", variant="primary", elem_id="audit", **START
            )
        self.file = gr.HTML(FILE_BOX, elem_id="audit-box")
        self.kind = gr.Dropdown(
            [(f"A quick look ({len(QUICK)} attacks)", "quick"), ("Every attack", "all")],
            value="quick",
            label="How to try",
            elem_id="audit-kind",
            filterable=False,
        )
        self.place = gr.Textbox(
            label="Or a file, a model folder or a Hugging Face id",
            info="for whoever runs this page, on this machine",
            elem_id="audit-place",
            visible=False,
        )
        self.message = gr.HTML(note(ABOUT), elem_id="audit-said")
        self._sent, self._name = gr.Textbox(visible=False), gr.Textbox(visible=False)
        inputs = [key, self._sent, self._name, self.concept, self.kind, self.place]
        shown = [*page.of_one_run, page.run, page.stop, page.concept, page.hint]
        outputs = [*shown, tabs, self.message]
        gr.on(
            [self.start.click, self.concept.submit], self.run, inputs, outputs, js=SEND, **WORKING
        )

    def wire_visit(self, demo: gr.Blocks) -> None:
        """Show the owner of the page the field that visitors do not have."""
        demo.load(self._owner, None, self.place, **QUIET)

    def _owner(self, request: gr.Request) -> gr.Textbox:
        return gr.Textbox(visible=is_owner(request))

    def run(
        self,
        request: gr.Request,
        key: str,
        sent: str,
        name: str,
        concept: str,
        kind: str,
        place: str,
    ) -> Iterator[Updates]:
        """Queue an audit and show it in the first tab until it ends."""
        visitor = visitor_of(self._engine, request, key)
        path = stored(self._engine, visitor, sent)
        try:
            asked = self._asked(request, path, sent, name, concept, kind, (place or "").strip())
            job = self._engine.submit(asked, visitor, visitor_address(request))
        except UnlearnError as error:
            if path:
                path.unlink(missing_ok=True)
            yield {self.message: alert(str(error))}
            return
        yield {self._tabs: gr.Tabs(selected=ONE), self.message: note(ABOUT)}
        yield from self._runs.follow(job)

    def _asked(
        self,
        request: gr.Request,
        path: object,
        sent: str,
        name: str,
        concept: str,
        kind: str,
        place: str,
    ) -> AuditRequest:
        """The request, checked.

        Raises:
            ConfigError: nothing is audited, or by somebody who may not name places of this machine.
        """
        if str(sent or "").startswith(REFUSED):
            raise ConfigError(sent.removeprefix(REFUSED))
        if place and not is_owner(request):
            raise ConfigError("A visitor sends a file; folders and ids are for the page's owner.")
        if not place and path is None:
            raise ConfigError(f"There is no file; choose a LoRA as {SUFFIX}.")
        source = place or str(path)
        called = public_name(source) if place else str(name or "adapter")[-80:]
        config: RunConfig = make_config(concept, model=self._model, audited=called)
        preview_concept(config)
        return AuditRequest(config, source, kinds_of(kind), sent=not place)
