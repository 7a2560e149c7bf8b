"""Commands on clusters: check one, submit a study to one; and running any command there as a job."""

import os
import signal
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from dirtune.cli.app import CLUSTERS, AllowPlugins, Expect, PluginFiles, StudyName, app, check_root, show

if TYPE_CHECKING:
    from dirtune.cluster.jobs import Job

Python = Annotated[
    str, typer.Option(help="With --address http://...: Python executable of the cluster, as its shell finds it.")
]
Installed = Annotated[
    bool, typer.Option("--installed", help="Run the dirtune that is installed on the cluster instead of this one.")
]
JobsAddress = Annotated[
    str | None,
    typer.Option(
        "--address",
        help="http://host:8265 of a cluster: run there as a job, for results that this machine does not reach.",
    ),
]


def run_on_cluster(
    address: str,
    verb: str,
    *arguments: str,
    roots: Mapping[str, str | None],
    python: str = "python",
    installed: bool = False,
) -> NoReturn:
    """Run a command on a cluster instead of here, show its output, and exit with its exit code."""
    from dirtune.cluster.submission import Destination, submit_command

    destination = Destination(address=address, python=python, installed=installed)
    # Roots that are not given stay the defaults of the command there.
    given = {option: root for option, root in roots.items() if root is not None}
    raise typer.Exit(follow_job(submit_command(destination, verb, *arguments, roots=given)))


def follow_job(job: "Job") -> int:
    """Show a job's log until the job ends, and return its exit code; Ctrl-C stops only the following."""
    from dirtune.cluster.jobs import follow

    def write(text: str) -> None:
        # Pieces of a log may end within a line, which `print` would break.
        sys.stdout.write(text)
        sys.stdout.flush()

    try:
        return follow(job, write)
    except KeyboardInterrupt:
        show(f"job {job.id} continues; follow it again by `{job.follow_command}`")
        # The exit code with which shells report a process that ended by this signal.
        return 128 + signal.SIGINT


@app.command(rich_help_panel=CLUSTERS)
def doctor(
    address: Annotated[
        str | None,
        typer.Option(
            help="host:port of a cluster, auto, or http://host:8265 to check it from inside as a job; "
            "default: RAY_ADDRESS, else this machine alone."
        ),
    ] = None,
    data: Annotated[
        str | None, typer.Option(help="Root of the data sets: check that every node reads it.", callback=check_root)
    ] = None,
    results: Annotated[
        str | None,
        typer.Option(help="Root of the results: check that every node reads and writes it.", callback=check_root),
    ] = None,
    dirtune: Annotated[str | None, typer.Option(help="Version of dirtune that every node must have.")] = None,
    python: Python = "python",
    installed: Installed = False,
) -> None:
    """Check that this machine or every node of a cluster can run a sweep, with advice; exit code 1 if there is a problem."""
    from dirtune.cluster.checks import has_problem

    # An empty RAY_ADDRESS counts as none.
    address = address or os.environ.get("RAY_ADDRESS") or None
    if address is not None and address.startswith(("http://", "https://")):
        version = [] if dirtune is None else ["--dirtune", dirtune]
        roots = {"--data": data, "--results": results}
        run_on_cluster(address, "doctor", *version, roots=roots, python=python, installed=installed)
    # Imported only now: a client of a remote cluster needs no torch.
    from dirtune.cli.display import format_checks
    from dirtune.cluster.doctor import doctor as check_cluster

    checks = check_cluster(address, data=data, results=results, dirtune=dirtune)
    show(format_checks(checks))
    raise typer.Exit(1 if has_problem(checks) else 0)


@app.command(rich_help_panel=CLUSTERS)
def submit(
    study: StudyName,
    address: Annotated[str, typer.Option(help="Address of the cluster's jobs: http://host:8265.")],
    data: Annotated[
        str,
        typer.Option(
            help="Root of the data sets, as every node reaches it: a URL or absolute path.", callback=check_root
        ),
    ],
    results: Annotated[str, typer.Option(help="Root of the results, as every node reaches it.", callback=check_root)],
    no_follow: Annotated[bool, typer.Option("--no-follow", help="Return as soon as the job is submitted.")] = False,
    python: Python = "python",
    installed: Installed = False,
    expect: Expect = None,
    plugin: PluginFiles = None,
    allow_plugins: AllowPlugins = False,
) -> None:
    """Sweep a study on a cluster, as a job that continues when this terminal closes; Ctrl-C stops only the following.

    The study is validated before anything is sent, and every node checks the roots before the sweep. A cluster with a token needs
    RAY_AUTH_MODE=token, and RAY_AUTH_TOKEN_PATH (a file) or RAY_AUTH_TOKEN. Submitting again completes the sweep. `dirtune status`
    and `dirtune stop` work from any machine that reaches the results, and with --address on the cluster itself.
    """
    from dirtune.cluster.submission import submit as submit_study

    job = submit_study(
        study,
        address=address,
        data=data,
        results=results,
        python=python,
        installed=installed,
        expect=expect,
        plugins=plugin or (),
        allow_plugins=allow_plugins,
    )
    show(f"submitted as job {job.id}; follow it again by `{job.follow_command}`")
    raise typer.Exit(0 if no_follow else follow_job(job))
