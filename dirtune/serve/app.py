"""The web application: routes, the token, headers, and errors as pages.

Names, errors and settings are untrusted texts: the templates escape all of them, images run no scripts, and a content
security policy allows nothing but this server's own style and scripts.
"""

import hashlib
import secrets
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from importlib.resources import files
from typing import Any

from jinja2 import PackageLoader
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import HTTPConnection, Request
from starlette.responses import HTMLResponse, PlainTextResponse, RedirectResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from dirtune.errors import InputError, escape_control_characters
from dirtune.io.credentials import remove_credentials
from dirtune.plugins import FilePlugin
from dirtune.results.report.page import make_environment
from dirtune.results.tables.comparison import TableRequest
from dirtune.serve.pages import CHOICES, SQL_ROWS, SQL_SECONDS, Pages

HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'self'; script-src 'self'; img-src data:; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}
TOKEN = "token"
STATIC = {
    "page.css": ("dirtune.results.report", "text/css"),
    "serve.css": ("dirtune.serve", "text/css"),
    "sorting.js": ("dirtune.results.report", "text/javascript"),
    "live.js": ("dirtune.serve", "text/javascript"),
}
"""Package and type of each file that a page loads."""
EXAMPLES = (
    "select arm, status, count(*) as trials from trials group by all order by all",
    "select study, arm, region, mean, sd, n from arms where metric = 'mae' and split = 'test' and selection = 'best_val' order by all",
    "select arm, seed, error from trials where status = 'failed'",
)


class _Guard:
    """Middleware: refuses requests without the token, and adds the headers to every response."""

    def __init__(self, app: ASGIApp, token: str) -> None:
        self._app, self._token = app, token
        # Browsers share the cookies of all ports of a machine, on which several servers may run.
        self._cookie = f"dirtune-{hashlib.sha256(token.encode()).hexdigest()[:8]}"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] += [(name.lower().encode(), value.encode()) for name, value in HEADERS.items()]
            await send(message)

        connection = HTTPConnection(scope)
        given = connection.query_params.get(TOKEN)
        if given is not None and self._is_right(given):
            # Out of the address, where it would be copied and remembered
            response: Response = RedirectResponse("/", 303)
            response.set_cookie(self._cookie, self._token, httponly=True, samesite="strict")
        elif self._is_right(connection.cookies.get(self._cookie, "")):
            await self._app(scope, receive, send_with_headers)
            return
        else:
            response = PlainTextResponse("Open the address that `dirtune serve` has printed: it has a token.", 403)
        await response(scope, receive, send_with_headers)

    def _is_right(self, given: str) -> bool:
        # In constant time; bytes, because it refuses other letters than those of ASCII.
        return secrets.compare_digest(given.encode(), self._token.encode())


class _Site:
    """The response to each route."""

    def __init__(self, root: str, given: Sequence[FilePlugin], *, allow_plugins: bool) -> None:
        self._pages = Pages(root, given, allow_plugins=allow_plugins)
        self._templates = make_environment(PackageLoader("dirtune.serve"))
        self._templates.finalize = lambda value: escape_control_characters(value) if type(value) is str else value
        self._templates.globals |= {"place": remove_credentials(root), "choices": CHOICES}
        self._templates.filters["duration"] = lambda seconds: str(timedelta(seconds=round(seconds)))

    def show_studies(self, request: Request) -> Response:
        return self._render("studies.html", studies=self._pages.list_studies())

    def show_study(self, request: Request) -> Response:
        name = request.path_params["study"]
        info, status = self._pages.read_info(name), self._pages.read_status(name)
        return self._render("study.html", study=name, info=info, status=status)

    def show_progress(self, request: Request) -> Response:
        """Render the part of a study's page that its script refreshes."""
        return self._render("progress.html", status=self._pages.read_status(request.path_params["study"]))

    def show_table(self, request: Request) -> Response:
        name, chosen = request.path_params["study"], _read_form(request)
        wanted = TableRequest(
            studies=(name,),
            metrics=tuple(chosen.get("metric", ())),
            regions=tuple(chosen.get("region", CHOICES["region"])),
            arms=tuple(chosen.get("arm", ())),
            **_take_first(chosen, "split", "selection", "reference", "margin"),
        )
        return self._show_chosen("table.html", name, chosen, lambda: {"table": self._pages.make_table(wanted)})

    def show_figures(self, request: Request) -> Response:
        name, chosen = request.path_params["study"], _read_form(request)
        options = _take_first(chosen, "metric", "region", "split", "selection", "reference", "x", "y", "each")
        kind = chosen.get("kind", ["regions"])[0]

        def draw() -> dict[str, Any]:
            picture, remarks = self._pages.draw(name, kind, {**options, "arms": tuple(chosen.get("arm", ()))})
            return {"picture": picture, "remarks": remarks}

        kinds, hidden = self._pages.list_figures(name)
        return self._show_chosen("figures.html", name, chosen, draw, kind=kind, kinds=kinds, hidden=hidden)

    def show_trials(self, request: Request) -> Response:
        name, chosen = request.path_params["study"], _take_first(_read_form(request), "arm", "status", "page")
        arm, status, page = chosen.get("arm", ""), chosen.get("status", ""), chosen.get("page", "")
        number = int(page) if page.isascii() and page.isdigit() else 1
        return self._render(
            "trials.html",
            study=name,
            info=self._pages.read_info(name),
            found=self._pages.list_trials(name, arm=arm, status=status, page=number),
            arm=arm,
            status=status,
            started=self._pages.read_status(name).started,
        )

    def show_trial(self, request: Request) -> Response:
        name, trial_id = request.path_params["study"], request.path_params["trial"]
        found = self._pages.read_trial(name, trial_id, request.query_params.get("curve", ""))
        return self._render("trial.html", study=name, found=found)

    def show_sql(self, request: Request) -> Response:
        sql = request.query_params.get("sql", "")
        rows, has_more, problem = None, False, ""
        if sql.strip():
            try:
                rows, has_more = self._pages.run_sql(sql)
            except InputError as error:
                problem = str(error)
        limits = {"limit": SQL_ROWS, "seconds": SQL_SECONDS}
        values = {"sql": sql, "rows": rows, "has_more": has_more, "problem": problem, "examples": EXAMPLES}
        return self._render("sql.html", 400 if problem else 200, **values, **limits)

    def get_static(self, request: Request) -> Response:
        name = request.path_params["name"]
        if name not in STATIC:
            raise HTTPException(404)
        package, kind = STATIC[name]
        folder = files(package) / "static" if package == "dirtune.serve" else files(package)
        return Response(folder.joinpath(name).read_bytes(), media_type=kind)

    def show_error(self, request: Request, error: Exception) -> Response:
        if isinstance(error, InputError):
            return self._render("error.html", 404, title="This cannot be shown", problem=str(error))
        if isinstance(error, HTTPException):
            return self._render("error.html", error.status_code, title="Not found", problem="There is no such page.")
        problem = f"The results cannot be read now: {remove_credentials(str(error))}"
        return self._render("error.html", 503, title="Results are out of reach", problem=problem)

    def _show_chosen(
        self,
        template: str,
        study: str,
        chosen: Mapping[str, list[str]],
        make: Callable[[], dict[str, Any]],
        **values: Any,
    ) -> Response:
        """Render a page with a form; an invalid choice is a sentence below the form, which remains."""
        info = self._pages.read_info(study)
        try:
            made, problem = make(), ""
        except InputError as error:
            made, problem = {}, str(error)
        values |= {"study": study, "info": info, "chosen": chosen, "problem": problem}
        return self._render(template, 400 if problem else 200, **values, **made)

    def _render(self, template: str, code: int = 200, **values: Any) -> HTMLResponse:
        return HTMLResponse(self._templates.get_template(template).render(values), code)


def make_app(root: str, token: str, given: Sequence[FilePlugin] = (), *, allow_plugins: bool = False) -> Starlette:
    """Return the application of a results root.

    Args:
        root: path or URL of the results.
        token: opens the pages: `/?token=...` stores it as a cookie.
        given: plug-ins that are loaded already, whose figures are shown.
        allow_plugins: run the code of the plug-ins that sweeps have recorded, and show their figures.
    """
    site = _Site(root, given, allow_plugins=allow_plugins)
    routes = [
        Route("/", site.show_studies),
        Route("/sql", site.show_sql),
        Route("/static/{name}", site.get_static),
        Route("/study/{study}", site.show_study),
        Route("/study/{study}/progress", site.show_progress),
        Route("/study/{study}/table", site.show_table),
        Route("/study/{study}/figures", site.show_figures),
        Route("/study/{study}/trials", site.show_trials),
        Route("/study/{study}/trials/{trial}", site.show_trial),
    ]
    handlers: dict[Any, Any] = {InputError: site.show_error, OSError: site.show_error, 404: site.show_error}
    return Starlette(routes=routes, middleware=[Middleware(_Guard, token=token)], exception_handlers=handlers)


def _read_form(request: Request) -> dict[str, list[str]]:
    """Return the choices of a form by the name of their field, without empty ones."""
    chosen: dict[str, list[str]] = {}
    for name, value in request.query_params.multi_items():
        if value:
            chosen.setdefault(name, []).append(value)
    return chosen


def _take_first(chosen: Mapping[str, list[str]], *names: str) -> dict[str, Any]:
    return {name: chosen[name][0] for name in names if name in chosen}
