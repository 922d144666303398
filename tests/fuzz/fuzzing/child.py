"""A warm process: command lines of `avb` come in on stdin, one after the other, as lines of JSON.

What it answers on its first stdout: exit code, stdout, stderr, and the traceback of a fault that
no command turned into a line. Whatever libraries write themselves goes to its stderr.
"""

import faulthandler
import json
import os
import resource
import sys
import traceback

from typer.testing import CliRunner

import avb.tools.ui.film  # noqa: F401  (whatever takes long to import)
from avb.tools.cli import app


def main() -> None:
    """Until stdin ends."""
    faulthandler.enable()
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as answers:
        os.dup2(2, 1)
        answers.write("{}\n")  # ready
        answers.flush()
        for line in sys.stdin:
            run = CliRunner().invoke(app, json.loads(line))
            trace = ""
            if run.exception is not None and not isinstance(run.exception, SystemExit):
                trace = "".join(traceback.format_exception(run.exception))
            most = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss >> 10
            answer = {"code": run.exit_code, "out": run.stdout, "err": run.stderr}
            answers.write(json.dumps(answer | {"trace": trace, "programs_mb": most}) + "\n")
            answers.flush()


if __name__ == "__main__":
    main()
