"""The `tamis` command.

Nothing but click is imported before a command runs: `tamis --help` answers at once, and a stage's packages load when
it runs.
"""

from __future__ import annotations

import sys
from typing import Any

import click

from tamis import __version__
from tamis.cli import cluster, demo, kubeflow, runs, stages, starting, tools
from tamis.core.errors import TamisError
from tamis.core.secrets import shown


class _Teaching(click.Group):
    """Shows errors of Tamis as plain text, and lists commands in the order of the work."""

    def list_commands(self, context: click.Context) -> list[str]:
        return list(self.commands)

    def invoke(self, context: click.Context) -> Any:
        try:
            return super().invoke(context)
        except TamisError as error:
            click.echo(f"error: {shown(str(error))}\n  code:    {error.code}", err=True)
            sys.exit(1)
        except KeyboardInterrupt:
            click.echo("stopped by Ctrl-C; what was finished before is kept", err=True)
            sys.exit(130)


@click.group(
    cls=_Teaching,
    epilog="\b\nExamples:\n  tamis init                          write a first settings file, by questions\n"
    "  tamis demo                          the whole chain on small models and data that come with Tamis\n"
    "  tamis doctor settings.yaml          check everything before anything is spent\n"
    "  tamis run settings.yaml             the whole chain on this machine\n"
    "  tamis curate --help                 one stage and its settings",
)
@click.version_option(__version__, prog_name="tamis")
@click.option("-v", "--verbose", is_flag=True, help="Say more on the way.")
def main(verbose: bool) -> None:
    """Choose which instruction data to train on.

    Language models rate every sample, Tamis finds and corrects the raters' errors, keeps the best and rarest samples,
    finetunes a model on them and shows on benchmarks what that gave.
    """
    from tamis.core.progress import set_up_logging

    set_up_logging(verbose)


main.add_command(demo.demo)
main.add_command(starting.init)
for _name, _stage in stages.STAGES.items():
    main.add_command(stages.stage_command(_name, _stage))
for _command in (
    *(runs.run, runs.doctor, runs.plan),
    *(kubeflow.compile_pipelines, kubeflow.submit, kubeflow.upload, kubeflow.schedule, cluster.trainjob),
    *(tools.compare, tools.decontaminate, tools.rating, tools.grade, tools.compare_reports),
    *(cluster.wait, cluster.probe, cluster.fetch),
):
    main.add_command(_command)
