"""`horizon` and `python -m horizon`: one program, and the one place that turns errors into a sentence and an exit code."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Sequence
from io import TextIOWrapper

from horizon.errors import ExitCode, Halt, HorizonError, StrategyError


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code. An error of the operator is one sentence on stderr; a bug keeps its traceback."""
    _never_fail_on_a_character()
    try:
        # Inside, so that Ctrl-C during the imports is no traceback either.
        import click

        from horizon.cli.app import cli

        try:
            code = cli.main(arguments, prog_name="horizon", standalone_mode=False)
        except click.Abort:
            return ExitCode.INTERRUPTED
        except click.ClickException as error:
            error.show()
            return ExitCode.USAGE
    except KeyboardInterrupt:
        return ExitCode.INTERRUPTED
    except HorizonError as error:
        if isinstance(error, StrategyError) and error.__cause__ is not None:
            # The author of a strategy needs the line; the frames above his file are cut off already.
            traceback.print_exception(error.__cause__)
        return _say(str(error), error.exit_code)
    except Halt as halt:
        return _say(halt.reason, halt.exit_code)
    return int(code or ExitCode.DONE)


def _say(sentence: str, code: ExitCode) -> int:
    print(f"horizon: {sentence}", file=sys.stderr)
    return code


def _never_fail_on_a_character() -> None:
    """A name of a market that the locale cannot show comes out escaped instead of as an exception."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


if __name__ == "__main__":
    sys.exit(main())
