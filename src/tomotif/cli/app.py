"""The command line: `tomotif COMMAND`. Commands are imported only when they are called, so that help is quick."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

from cyclopts import App, CycloptsError
from cyclopts.config import Yaml

from tomotif import __version__

COMMANDS = {
    "demo": "Run the whole line on a simulated and on a real tomogram, and write a report.",
    "doctor": "Print versions and hardware, and a verdict on each file.",
    "structures": "List the structures that come with tomotif.",
    "models": "List the networks that can be trained.",
    "simulate": "Simulate tomograms of known structures, with the truth.",
    "pick": "Find particles in tomograms, without templates.",
    "extract": "Cut subtomograms at particles.",
    "train": "Train a network.",
    "classify": "Name the structure in every subtomogram.",
    "cluster": "Group subtomograms by simple features, without labels.",
    "average": "Average the subtomograms of each class with their given poses.",
    "score": "Compare picks and classes with the truth.",
    "report": "Write one HTML page from run folders.",
}


def build_app() -> App:
    """Put together the command-line application; nothing heavy is imported."""
    app = App(
        name="tomotif",
        help="Find the macromolecular structures in cellular cryo-electron tomograms, without templates. "
        "Lengths are in Å, angles in degrees; other units are in an option's name. "
        "--config FILE.yaml reads options from the section of the command's name; --debug shows tracebacks.",
        version=__version__,
        result_action="return_value",
        help_format="plaintext",  # markdown would take a third of the time that help takes
    )
    for name, line in COMMANDS.items():
        app.command(f"tomotif.cli.{name}:{'app' if name == 'train' else name}", name=name, help=line)
    return app


def take_option(tokens: list[str], name: str) -> str | None:
    """Remove ``name VALUE`` from the tokens and give the value, None when it is not there."""
    if name not in tokens:
        return None
    at = tokens.index(name)
    if at + 1 == len(tokens):
        raise SystemExit(f"tomotif: expected a value after {name}")
    value = tokens[at + 1]
    del tokens[at : at + 2]
    return value


def one_line(error: Exception) -> str:
    """What went wrong, in one line; all settings that are out of range are named together."""
    for cause in (error, error.__cause__, error.__context__):
        problems = getattr(cause, "errors", None)
        if problems is not None:
            return "; ".join(map(described, problems()))
    return " ".join(str(error).split())


def described(problem: Mapping[str, Any]) -> str:
    """One of the settings' problems: the option, what was expected and what came."""
    message: str = problem["msg"].removeprefix("Value error, ")
    option = "-".join(map(str, problem["loc"])).replace("_", "-")
    return f"--{option}: {message}, got {problem['input']}" if option else message


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; a problem with the input is one line on standard error and exit code 2."""
    warnings.filterwarnings("ignore", message=".*LeafSpec.*")  # Lightning 2.6 with torch 2.13; nothing a user can do
    tokens = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in tokens
    tokens = [t for t in tokens if t != "--debug"]
    app = build_app()
    config = take_option(tokens, "--config")
    if config is not None:
        app.config = Yaml(config, must_exist=True, use_commands_as_keys=True)
    try:
        app(tokens, print_error=False, exit_on_error=False)
    except (ValueError, OSError, CycloptsError) as error:
        from tomotif.core.errors import TomotifError

        if debug or not isinstance(error, TomotifError | CycloptsError):
            raise
        sys.stderr.write(f"tomotif: {one_line(error)}\n")
        raise SystemExit(2) from None
