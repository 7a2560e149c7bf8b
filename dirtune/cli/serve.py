"""The command `serve`: results in a browser."""

from typing import Annotated

import typer

from dirtune.cli.app import RESULTS, AllowPlugins, PluginFiles, ResultsRoot, app, show


@app.command(rich_help_panel=RESULTS)
def serve(
    results: ResultsRoot = "results",
    port: Annotated[int, typer.Option(help="Port on this machine; 0 for a free one.", min=0, max=65535)] = 8090,
    plugin: PluginFiles = None,
    allow_plugins: AllowPlugins = False,
) -> None:
    """Show results in a browser, also during a sweep: progress, tables, figures, trials, SQL; read-only, for this machine."""
    from dirtune.serve.server import serve as run

    def report_address(address: str) -> None:
        show(f"results: {address}", "Ctrl-C ends it.")

    try:
        run(
            results,
            port=port,
            on_start=report_address,
            plugins=plugin or (),
            allow_plugins=allow_plugins,
        )
    except KeyboardInterrupt:
        raise typer.Exit from None
