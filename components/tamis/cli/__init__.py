"""The `tamis` command.

Only click is imported before a command runs, so that `tamis --help` answers at once. A stage's packages are loaded when
the stage runs.
"""

from __future__ import annotations

import sys
from typing import Any

import click

from tamis import __version__
from tamis.cli import cluster, demo, kubeflow, runs, stages, starting, tools, watching
from tamis.core.errors import TamisError
from tamis.core.secrets import shown


class _Commands(click.Group):
    """Prints errors of Tamis without a traceback, and lists commands in the order in which they are used."""

    def list_commands(self, context: click.Context) -> list[str]:
        return list(self.commands)

    def invoke(self, context: click.Context) -> Any:
        try:
            return super().invoke(context)
        except TamisError as error:
            click.echo(f"error: {shown(str(error))}\n  code:    {error.code}", err=True)
            sys.exit(error.exit_code)
        except KeyboardInterrupt:
            click.echo("stopped by Ctrl-C; finished work is kept", err=True)
            sys.exit(130)


@click.group(
    cls=_Commands,
    epilog="\b\nExamples:\n  tamis init                          answer questions to write a first settings file\n"
    "  tamis demo                          run everything on small models and data that come with Tamis\n"
    "  tamis doctor settings.yaml          check everything before a run; costs nothing\n"
    "  tamis run settings.yaml             run everything on this machine\n"
    "  tamis curate --help                 show the options and settings of one stage",
)
@click.version_option(__version__, prog_name="tamis")
@click.option("-v", "--verbose", is_flag=True, help="Log more details.")
def main(verbose: bool) -> None:
    """Choose which instruction data to train on.

    Language models rate every sample. Tamis corrects the raters' errors, selects the best and rarest samples,
    finetunes a model on them, and evaluates the model on benchmarks.
    """
    from tamis.core.hub_access import use_own_cache
    from tamis.core.progress import set_up_logging

    set_up_logging(verbose)
    use_own_cache()


main.add_command(demo.demo)
main.add_command(starting.init)
for _name, _stage in stages.STAGES.items():
    main.add_command(stages.stage_command(_name, _stage))
for _command in (
    *(runs.run, runs.doctor, runs.plan),
    *(kubeflow.compile_pipelines, kubeflow.submit, watching.status, watching.stop, kubeflow.upload, kubeflow.schedule),
    *(cluster.outcomes, cluster.trainjob),
    *(tools.compare, tools.decontaminate, tools.rating, tools.grade, tools.compare_reports),
    *(cluster.wait, cluster.probe, cluster.fetch),
):
    main.add_command(_command)
