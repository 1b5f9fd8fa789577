"""One training process: `python -m tamis.finetuning.worker FOLDER`, as torchrun starts it for `processes.launch`."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from tamis.core.errors import TamisError
from tamis.core.processes import end_with
from tamis.core.progress import set_up_logging
from tamis.finetuning.processes import Order, report, world
from tamis.finetuning.stage import run


def main(folder: Path) -> None:
    """Run the stage as the order in `folder` says, and write its manifest or its failure there."""
    end_with(os.getppid())
    order, rank = Order.read(folder), world().rank
    set_up_logging(order.verbose)
    try:
        manifest = run(order.settings, selection=order.selection, out=order.out)
    except TamisError as error:
        report(folder, rank, error)
        sys.exit(error.exit_code)  # the launcher shows it
    except Exception as error:
        report(folder, rank, error)
        raise
    if rank % int(os.environ["LOCAL_WORLD_SIZE"]) == 0:
        report(folder, rank, manifest)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
