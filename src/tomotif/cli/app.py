"""The command line: `tomotif COMMAND`. Commands are imported only when they are called, so that help is quick."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cyclopts import App, CycloptsError, Parameter
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
    "features": "Place subtomograms in the feature space of a trained classifier.",
    "cluster": "Group subtomograms by simple features, without labels.",
    "mine": "Find what is in tomograms without any labels.",
    "discover": "Find which structures there are, new ones among them.",
    "average": "Align the subtomograms of each class to each other, and average them.",
    "fit": "Fit known structures to a map, in both hands.",
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
        default_parameter=Parameter(consume_multiple=True, negative_iterable=""),  # --counts 4 3, and no --empty-counts
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
        raise usage_error(f"expected a value after {name}, got nothing")
    value = tokens[at + 1]
    del tokens[at : at + 2]
    return value


def usage_error(message: str) -> SystemExit:
    """Say on standard error what is wrong; gives the exception that ends the command with 2."""
    sys.stderr.write(f"tomotif: {message}\n")
    return SystemExit(2)


def check_config(path: Path) -> None:
    """See that a YAML file is there and has sections of commands only."""
    import yaml

    if not path.is_file():
        raise usage_error(f"expected a YAML file after --config, but {path} does not exist; check the path")
    try:
        sections = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except yaml.YAMLError as error:
        raise usage_error(f"expected YAML in {path}, got {' '.join(str(error).split())}") from None
    unknown = (
        [str(name) for name in sections if name not in COMMANDS] if isinstance(sections, dict) else [str(sections)]
    )
    if unknown:
        raise usage_error(
            f"expected sections named like commands in {path}, got {unknown[0]!r}; known: {', '.join(COMMANDS)}"
        )


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
        check_config(Path(config))
        app.config = Yaml(config, must_exist=True, use_commands_as_keys=True)
    try:
        app(tokens, print_error=False, exit_on_error=False)
    except (ValueError, OSError, CycloptsError) as error:
        from tomotif.core.errors import TomotifError

        if debug or not isinstance(error, TomotifError | CycloptsError):
            raise
        sys.stderr.write(f"tomotif: {one_line(error)}\n")
        raise SystemExit(2) from None
