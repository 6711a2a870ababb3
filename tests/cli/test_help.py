"""What the help says, from the definitions of the commands: one vocabulary, and examples that can be typed."""

import re
import shlex

import pytest
import typer
from typer.testing import CliRunner

from muvera_adapters.cli import _typer

GROUP = typer.main.get_command(_typer)
COMMANDS = GROUP.commands
CONTEXT = typer.Context(GROUP, info_name="muvera", **GROUP.context_settings)


def options(command):
    return [each for each in command.params if each.param_type_name == "option"]


def test_a_name_means_the_same_in_all_commands():
    found = {}
    for command in COMMANDS.values():
        for each in options(command):
            found.setdefault(each.opts[0], set()).add(each.metavar)
    # a file of a saved encoder, or the name of a kind; a number of documents, or the array of token vectors
    different = {name: metavars for name, metavars in found.items() if len(metavars) > 1}
    assert different == {"--encoder": {"FILE", "ENCODER"}, "--tokens": {"N", "COLUMN"}}
    assert not found.keys() & {"--query-npy", "--where", "--bytes", "--dim"}


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_says_what_it_is_with_an_example_or_a_default(name):
    for each in COMMANDS[name].params:
        assert re.fullmatch(r"[A-Z][^\n]+\.", each.help), (each.name, each.help)
        assert each.metavar == "" or re.fullmatch(r"[A-Z|=,.]+", each.metavar), each.name
        told = re.search(r"for example|Default: ", each.help, re.IGNORECASE)
        assert each.metavar == "" or told or each.default is not None, each.name


@pytest.mark.parametrize("name", COMMANDS)
def test_help_fits_into_80_columns_and_its_examples_can_be_typed(name):
    shown = CliRunner().invoke(_typer, [name, "-h"], prog_name="muvera", env={"COLUMNS": "80", "TERMINAL_WIDTH": "80"})
    assert shown.exit_code == 0
    lines = shown.output.splitlines()
    assert max(map(len, lines)) <= 80
    assert not re.search(r"<bool>|\{|…", shown.output)
    commands = "\n".join(lines[lines.index(next(line for line in lines if "Examples:" in line)) + 1 :])
    commands = [
        line.partition("|")[2] or line for line in re.sub(r"\\\s*\n", "", commands).splitlines() if line.strip()
    ]
    assert commands
    for command in commands:
        program, called, *arguments = shlex.split(command)
        assert program == "muvera"
        COMMANDS[called].make_context(called, arguments, parent=CONTEXT)  # raises for what does not exist


def test_choices_are_choices():
    done = CliRunner().invoke(_typer, ["search", "x", "--collection", "c", "--rerank", "best"])
    assert done.exit_code == 2
    assert re.search(r"'auto',\s.*'native'", done.output, re.DOTALL)
    for arguments in (["migrate", "x", "--to", "y", "--collection", "c", "--quantization", "q"], ["tune", "x"]):
        assert CliRunner().invoke(_typer, [*arguments, "--quantization", "q"]).exit_code == 2
