"""Options made from dataclasses: defaults and help come from the fields, and a new field of a simple type needs no more."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Annotated, Any, Literal

import pytest
import typer
from typer.testing import CliRunner, Result

from explaind_tf.cli.measured import Measured
from explaind_tf.cli.option_groups import _PLACES, Only, with_groups
from explaind_tf.cli.printing import Printed
from explaind_tf.questions.options import Options


def told(default: Any, help: str) -> Any:
    return field(default=default, metadata={"help": help})


@dataclass(frozen=True, kw_only=True)
class Wider(Options):
    """Options with one more of each simple type."""

    count: int = told(3, "How many.")
    share: float | None = told(None, "Which share.")
    name: str = told("all", "Of which name.")
    twice: bool = told(False, "Whether twice.")
    how: Literal["fast", "exact"] = told("fast", "How to do it.")


@dataclass
class Shell:
    """A command with one parameter, and what it was last called with."""

    runner: CliRunner
    annotation: Any
    options: Any = None

    def __call__(self, *arguments: str) -> Result:
        def command(options: Any) -> None:
            self.options = options

        command.__annotations__["options"] = self.annotation
        app = typer.Typer()
        app.command()(with_groups(command))
        return self.runner.invoke(app, arguments, catch_exceptions=False)

    def read(self, *arguments: str) -> Any:
        """Return what the command was called with."""
        result = self(*arguments)
        assert result.exit_code == 0, result.output
        return self.options


@pytest.fixture(name="shell")
def _shell(runner: CliRunner) -> Callable[[Any], Shell]:
    return lambda annotation: Shell(runner, annotation)


@pytest.mark.parametrize("group", [Options, Measured, Printed, Wider])
def test_defaults_and_help_are_those_of_the_fields(shell: Callable[[Any], Shell], group: type):
    said = shell(group)("--help").stdout
    for entry in fields(group):
        flag = "--json" if entry.name == "as_json" else f"--{entry.name.replace('_', '-')}"
        assert (f"{flag} " in said or f"{flag}," in said) == (_PLACES.get(entry.name, True) is not None), flag
        if _PLACES.get(entry.name, True) is not None:
            assert entry.metadata["help"].split(":")[0] in said
    assert shell(group).read() == group()


def test_a_new_field_is_an_option(shell: Callable[[Any], Shell]):
    typed = ("--count", "5", "--share", "0.5", "--name", "one", "--twice", "--how", "exact")
    found = shell(Wider).read(*typed)
    assert found == Wider(count=5, share=0.5, name="one", twice=True, how="exact")
    assert type(found.how) is str
    assert shell(Wider)("--how", "slow").exit_code == 2


def test_values_are_read_as_the_question_takes_them(shell: Callable[[Any], Shell]):
    typed = (
        "--axes",
        "layer, step",
        "--layers",
        "a,b",
        "--steps",
        "1:4",
        "--memory-limit",
        "4GB",
        "--step-of",
        "effect",
    )
    assert shell(Options).read(*typed) == Options(
        axes=("layer", "step"),
        layers=("a", "b"),
        steps=slice(1, 4),
        memory_limit=4 * 10**9,
        step_of="effect",
    )


def test_a_command_may_have_some_of_them_only(shell: Callable[[Any], Shell]):
    some = shell(Annotated[Options, Only("tolerance")])
    assert some.read("--tolerance", "0.5") == Options(tolerance=0.5)
    assert some("--axes", "layer").exit_code == 2


def test_what_is_not_typed_as_it_is_needs_a_place():
    @dataclass(frozen=True)
    class Odd:
        weights: Mapping[str, float] = told(None, "Of each layer.")

    def command(options: Odd) -> None:
        """Take what no command line has."""

    command.__annotations__["options"] = Odd
    with pytest.raises(TypeError, match=r"'weights'.*_PLACES"):
        with_groups(command)
