"""The command ``xent``: says what this build is, measures it beside NumPy, and evaluates logits in files.

Nothing of the library needs this file. The extra ``cli`` brings what it needs itself: rich, matplotlib and
ml_dtypes.
"""

from __future__ import annotations

import argparse
import contextlib
import errno
import math
import os
import re
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

import xent
from xent import _bench, _command, _eval_report
from xent._arrays import LEAST_SCALE, MOST_SCALE
from xent._bench import DEFAULT_SHAPES, MIN_REPETITIONS, Shape
from xent._command import UsageError
from xent._eval import PER_ROW
from xent._eval_report import STDOUT

with contextlib.suppress(ModuleNotFoundError):  # `_command.require` says how to install it
    from rich import box
    from rich.table import Table

EXIT_FAILURE = 1
EXIT_USAGE = 2
EXIT_INTERRUPTED = 130  # 128 + SIGINT, as shells have it

DTYPES = {"float32": "float32", "f32": "float32", "float64": "float64", "f64": "float64"}
SECONDS = 2.5


def info_table(config: dict[str, Any]) -> Table:
    """Return the configuration as a table."""
    table = Table(box=box.SIMPLE_HEAD, show_header=False)
    for key, value in config.items():
        table.add_row(key.replace("_", " "), ", ".join(value) if isinstance(value, list) else str(value))
    return table


def run_info(_args: argparse.Namespace) -> None:
    """Show the configuration."""
    _command.console().print(info_table(_command.configuration()))


def _file(*suffixes: str) -> Callable[[str], Path]:
    """Return an argument type: a file that can be written, with one of the suffixes."""

    def check(text: str) -> Path:
        path = Path(text)
        if path.suffix not in suffixes:
            raise argparse.ArgumentTypeError(f"{text!r} must end in {' or '.join(suffixes)}")
        if path.exists() and not path.is_file():
            what = "a directory" if path.is_dir() else "not a regular file"
            raise argparse.ArgumentTypeError(f"{text!r} is {what}")
        try:
            if path.exists() and not os.access(path, os.W_OK):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
            tempfile.TemporaryFile(dir=path.parent).close()
        except OSError as error:
            raise argparse.ArgumentTypeError(f"{text!r} cannot be written: {error.strerror}") from None
        return path

    return check


def _file_or_stdout(*suffixes: str) -> Callable[[str], Path]:
    """Return an argument type: such a file, or - for the standard output."""
    check = _file(*suffixes)
    return lambda text: STDOUT if text == "-" else check(text)


class _Parser(argparse.ArgumentParser):
    """A parser whose errors are one line, for `main` to print."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(message)


def _shape(text: str) -> Shape:
    match = re.fullmatch(r"([1-9][0-9]*)x([1-9][0-9]*)", text)
    if not match:
        raise argparse.ArgumentTypeError(f"{text!r} is not ROWSxCLASSES, such as 64x1000, both at least 1")
    shape = Shape(int(match[1]), int(match[2]))
    if shape.rows * shape.classes > sys.maxsize // np.dtype(np.float64).itemsize:
        raise argparse.ArgumentTypeError(f"{text!r} is larger than any array")
    return shape


def _dtype(text: str) -> str:
    if text not in DTYPES:
        raise argparse.ArgumentTypeError(f"{text!r} is not one of {', '.join(DTYPES)}")
    return DTYPES[text]


def _at_least(least: int) -> Callable[[str], int]:
    """Return an argument type: an integer not below the least."""

    def check(text: str) -> int:
        if not re.fullmatch(r"-?[0-9]{1,18}", text) or int(text) < least:
            raise argparse.ArgumentTypeError(f"{text!r} is not an integer of at least {least}")
        return int(text)

    return check


def _integer(text: str) -> int:
    if not re.fullmatch(r"-?[0-9]{1,20}", text):  # as many digits as a label of 64 bits may have
        raise argparse.ArgumentTypeError(f"{text!r} is not an integer")
    return int(text)


def _float(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan


def _positive(text: str) -> float:
    number = _float(text)
    if not 0 < number < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive number")
    return number


def _scale(text: str) -> float:
    number = _float(text)
    if not LEAST_SCALE <= number <= MOST_SCALE:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from {LEAST_SCALE:g} to {MOST_SCALE:g}")
    return number


def _fraction(text: str) -> float:
    number = _float(text)
    if not 0 <= number <= 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number between 0 and 1")
    return number


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = _Parser(prog="xent", description="Softmax cross-entropy and its gradient on NumPy arrays.")
    parser.add_argument("--version", action="version", version=f"xent {xent.__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")
    info = commands.add_parser("info", help="show what this build is and what it runs on", description=run_info.__doc__)
    info.set_defaults(run=run_info)

    shapes = ", ".join(map(str, DEFAULT_SHAPES))
    bench = commands.add_parser(
        "bench",
        help="measure the speed and the errors beside NumPy's",
        description="Time the cross-entropy alone, and with its gradient in the same pass, in turn with a careful "
        "NumPy implementation on one thread, and compare both with the float64 oracle.",
    )
    bench.set_defaults(run=_bench.run)
    bench.add_argument(
        "--shape", type=_shape, action="append", metavar="NxK", help=f"N rows of K classes; repeatable ({shapes})"
    )
    bench.add_argument("--dtype", type=_dtype, default="float32", help="float32 (the default) or float64, or f32, f64")
    bench.add_argument("--threads", type=_at_least(1), metavar="N", help="the largest number of threads xent uses")
    bench.add_argument("--seed", type=_at_least(0), default=0, help="of the random logits (0)")
    bench.add_argument(
        "--seconds",
        type=_positive,
        default=SECONDS,
        help=f"for each shape and operation, after which no repetition starts; {MIN_REPETITIONS} are always made "
        "(%(default)s)",
    )
    bench.add_argument("--json", type=_file(".json"), metavar="FILE.json", help="write all results")
    bench.add_argument("--plot", type=_file(".png", ".svg"), metavar="FILE.png|.svg", help="draw the throughputs")

    add_eval(commands)
    return parser


def add_eval(commands: argparse._SubParsersAction[_Parser]) -> None:
    """Add the command ``xent eval``."""
    parser = commands.add_parser(
        "eval",
        help="loss, accuracy and calibration of logits in .npy files",
        description="Show the loss, the perplexity, the accuracy, the entropy and the expected calibration error of "
        "logits and labels in .npy files, which are mapped and read block by block: they may be larger than the "
        "memory. What is written appears when all of it is there, or not at all.",
        epilog="The exit code is 0, 1 if a file could not be written, 2 if something is wrong with the files or the "
        "options, 130 after Ctrl-C.",
    )
    parser.set_defaults(run=_eval_report.run)
    parser.add_argument(
        "logits",
        type=Path,
        metavar="LOGITS.npy",
        help="an array of 2 or 3 axes, the classes last: float16, bfloat16, float32, float64 or integers, in either "
        "byte order, in C or Fortran order",
    )
    parser.add_argument("labels", type=Path, metavar="LABELS.npy", help="integers, the index of each row's class")
    parser.add_argument(
        "--dtype", choices=("bfloat16",), help="of logits in a file that says only that they are two bytes wide (V2)"
    )

    loss = parser.add_argument_group("options of the loss, as those of xent.cross_entropy")
    loss.add_argument("--ignore-index", type=_integer, metavar="N", help="leave out the rows with this label")
    loss.add_argument(
        "--label-smoothing",
        type=_fraction,
        default=0.0,
        metavar="E",
        help="so much of the target is spread over all classes; the perplexity is that without (0)",
    )
    loss.add_argument("--scale", type=_scale, default=1.0, metavar="S", help="multiply the logits by this (1)")
    loss.add_argument("--softcap", type=_scale, metavar="C", help="bound the logits by C tanh(S x / C)")

    parser.add_argument(
        "--top-k",
        type=_at_least(1),
        action="append",
        metavar="K",
        help="how often the label is among the K largest logits; repeatable (5)",
    )
    parser.add_argument(
        "--bins",
        type=_at_least(1),
        default=15,
        metavar="N",
        help="bins of the confidence for the calibration error (15)",
    )
    parser.add_argument("--threads", type=_at_least(1), metavar="N", help="the largest number of threads xent uses")

    write = parser.add_argument_group("files to write")
    write.add_argument(
        "--grad",
        type=_file(".npy"),
        metavar="FILE.npy",
        help="the gradient of the mean loss with respect to the logits, in their shape, order and dtype, but float32 "
        "if that is half precision",
    )
    write.add_argument(
        "--per-row",
        type=_file(".npy", ".csv"),
        metavar="FILE.npy|.csv",
        help=f"{', '.join(PER_ROW)} of each row, as records of an array in the shape of the labels, or as lines; "
        "rank 0 is a right prediction; ignored rows have the loss 0, else NaN and -1",
    )
    write.add_argument(
        "--plot",
        type=_file(".png", ".svg"),
        metavar="FILE.png|.svg",
        help="a reliability diagram and a histogram of the losses",
    )
    write.add_argument(
        "--json",
        type=_file_or_stdout(".json"),
        metavar="FILE.json|-",
        help="all results, with those of each bin; - is the standard output, without the table",
    )


def main(argv: list[str] | None = None) -> int:
    """Run the command ``xent``.

    Parameters
    ----------
    argv : list of str, optional
        The arguments; by default those of the process.

    Returns
    -------
    int
        The exit code: 0, 1 for a failure, 2 for a request that cannot be met, 130 for Ctrl-C.
    """
    parser = make_parser()
    try:
        args = parser.parse_args(argv)
        if "run" not in args:
            parser.print_help()
            return EXIT_USAGE
        _command.require("rich")
        args.run(args)
    except UsageError as error:
        return _fail(str(error), EXIT_USAGE)
    except MemoryError:
        return _fail("there is not enough memory", EXIT_FAILURE)
    except OSError as error:
        return _fail(str(error), EXIT_FAILURE)
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    return 0


def _fail(message: str, code: int) -> int:
    print(f"xent: {message}", file=sys.stderr)
    return code
