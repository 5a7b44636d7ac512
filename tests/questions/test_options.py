"""Options are checked when they are made, and public functions are made from them."""

import inspect
from dataclasses import fields, replace

import griffe
import pytest

from explaind_tf import Run
from explaind_tf.questions.options import Options, make_options

NAMES = [entry.name for entry in fields(Options)]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"axes": ("samples",)}, r"Unknown axes \['samples'\]"),
        ({"axes": ("layer", "parameter")}, "not both: the parameters of a layer"),
        ({"axes": ("sample", "group")}, "not both: the samples of a group"),
        ({"axes": ("token",)}, "without 'sample'"),
        ({"axes": ("sample", "token", "parameter")}, "Ask for 'layer' instead"),
        ({"tolerance": 0}, "tolerance must be a share"),
        ({"tolerance": "1e-3"}, "tolerance must be a share"),
        ({"step_of": "cause"}, 'step_of must be "use" or "effect"'),
        ({"batch_size": 0}, "batch_size must be a positive number; got 0"),
        ({"memory_limit": -1}, "memory_limit must be a positive number; got -1"),
        ({"max_nodes": 0}, "max_nodes must be a positive number; got 0"),
    ],
)
def test_what_means_nothing_is_refused_whatever_the_run(options, message):
    with pytest.raises(ValueError, match=message):
        Options(**options)


def test_a_single_axis_may_be_given_as_its_name():
    assert Options(axes="layer").axes == ("layer",)
    assert Options(axes=iter(("layer", "step"))).kept == {"layer", "step"}


def test_options_are_frozen_and_checked_again_when_changed():
    options = Options(axes=("layer",))
    with pytest.raises(AttributeError):
        options.tolerance = 0.5
    with pytest.raises(ValueError, match="tolerance"):
        replace(options, tolerance=2)


def test_an_unknown_option_is_refused_with_those_there_are():
    with pytest.raises(TypeError, match=r"attribute\(\) has no option 'tolerence'; there are: axes, layers"):
        make_options("attribute", tolerence=0.1)


@pytest.mark.parametrize("method", [Run.attribute, Run.plan])
def test_public_functions_name_every_option_with_its_default(method):
    parameters = inspect.signature(method).parameters
    assert [name for name in parameters if name in NAMES] == NAMES
    for entry in fields(Options):
        assert parameters[entry.name].default == entry.default
    assert "options" not in parameters


@pytest.mark.parametrize("method", [Run.attribute, Run.plan])
def test_public_functions_say_of_each_option_what_it_says_itself(method):
    def documented(text: str, kind: griffe.DocstringSectionKind) -> dict[str, str]:
        sections = griffe.Docstring(text, parser="numpy").parse()
        return {item.name: item.description.strip() for s in sections if s.kind is kind for item in s.value}

    own = documented(inspect.getdoc(Options), griffe.DocstringSectionKind.attributes)
    found = documented(inspect.getdoc(method), griffe.DocstringSectionKind.parameters)
    assert {name: found[name] for name in NAMES} == own


def test_every_option_has_a_line_of_help_and_says_what_depends_on_it():
    for entry in fields(Options):
        assert entry.metadata["help"].endswith(".")
        assert isinstance(entry.metadata["changes_ledger"], bool)
