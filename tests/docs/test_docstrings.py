"""Docstrings of all public names have the sections that the code requires.

Whether shapes, units and signs are given and right, only a reader can check.
"""

import ast
import builtins
import inspect
import textwrap
from collections.abc import Callable, Iterator
from typing import Any

import griffe
import pytest

import explaind_tf
from explaind_tf import analysis, datasets, measurements, models
from explaind_tf.attribution.checkpoint_run import CheckpointRun
from explaind_tf.attribution.planner import Pass, Plan
from explaind_tf.attribution.verdicts import Smoothness, Verdict
from explaind_tf.ledgers.accessor import DatasetLedger, TreeLedger
from explaind_tf.ledgers.response_accessor import Responses
from explaind_tf.runs import SampleStore
from tests.docs.pages import ROOT

SECTION = griffe.DocstringSectionKind


def public_objects() -> dict[str, Any]:
    """Return all public functions and classes by name, and the public methods of the classes."""
    found: dict[str, Any] = {}
    for module in (explaind_tf, analysis, datasets, models):
        found |= {name: getattr(module, name) for name in module.__all__}
    own = [value for value in vars(measurements).values() if _is_ours(value)]
    others = (
        *own,
        DatasetLedger,
        TreeLedger,
        CheckpointRun,
        Pass,
        Plan,
        Responses,
        SampleStore,
        Smoothness,
        Verdict,
    )
    found |= {value.__name__: value for value in others if not value.__name__.startswith("_")}
    for name, value in list(found.items()):
        if inspect.isclass(value):
            found |= {f"{name}.{key}": member for key, member in _members(value)}
    return {name: value for name, value in found.items() if not isinstance(value, str)}


def _is_ours(value: Any) -> bool:
    return getattr(value, "__module__", None) == measurements.__name__


def _members(owner: type) -> Iterator[tuple[str, Any]]:
    """Yield the public methods and properties that this package defines or redefines."""
    for base in reversed(owner.__mro__):
        if base.__module__.startswith("explaind_tf"):
            for name, value in vars(base).items():
                if not name.startswith("_") and (inspect.isfunction(value) or hasattr(value, "__get__")):
                    yield name, inspect.unwrap(value) if callable(value) else value


def overrides_another_library(name: str) -> bool:
    """Whether a method comes from Keras, whose documentation describes its parameters and return value."""
    owner, _, method = name.rpartition(".")
    bases = public_objects()[owner].__mro__ if owner else ()
    return any(method in vars(base) for base in bases if not base.__module__.startswith("explaind_tf"))


OBJECTS = public_objects()
FUNCTIONS = {
    name: value
    for name, value in OBJECTS.items()
    if inspect.isfunction(value) and not overrides_another_library(name)
}
CLASSES = {name: value for name, value in OBJECTS.items() if inspect.isclass(value)}


def sections_of(value: Any) -> dict[griffe.DocstringSectionKind, Any]:
    parsed = griffe.Docstring(inspect.getdoc(value) or "", parser="numpy").parse(warnings=False)
    return {section.kind: section.value for section in parsed}


def names_in(section: Any) -> list[str]:
    return [name.strip().lstrip("*") for item in section for name in item.name.split(",")]


@pytest.mark.parametrize("name", OBJECTS)
def test_every_public_name_has_a_docstring(name: str):
    documented = OBJECTS[name].__doc__  # not inherited
    assert documented and documented.split("\n")[0].endswith((".", ";", ":", ","))


@pytest.mark.parametrize("name", FUNCTIONS)
def test_parameters_are_those_of_the_signature(name: str):
    expected = [key for key in inspect.signature(FUNCTIONS[name]).parameters if key != "self"]
    assert names_in(sections_of(FUNCTIONS[name]).get(SECTION.parameters, [])) == expected


@pytest.mark.parametrize("name", CLASSES)
def test_a_class_documents_its_arguments_or_attributes(name: str):
    value, sections = CLASSES[name], sections_of(CLASSES[name])
    documented = names_in(sections.get(SECTION.parameters, []))
    if "__init__" in vars(value) and documented:
        assert documented == [key for key in inspect.signature(value).parameters if key != "self"]
    if "__dataclass_fields__" in vars(value):
        assert names_in(sections[SECTION.attributes]) == list(value.__dataclass_fields__)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_what_is_returned_is_documented(name: str):
    annotation = inspect.signature(FUNCTIONS[name]).return_annotation
    returns = annotation not in (None, "None", inspect.Signature.empty)
    assert (SECTION.returns in sections_of(FUNCTIONS[name])) == returns


@pytest.mark.parametrize("name", FUNCTIONS)
def test_what_is_raised_is_documented(name: str):
    documented = [item.annotation for item in sections_of(FUNCTIONS[name]).get(SECTION.raises, [])]
    documented = {part.strip() for text in documented for part in str(text).split(",")}
    known = vars(builtins) | vars(explaind_tf)
    assert all(issubclass(known[error], Exception) for error in documented)
    assert raised_by(FUNCTIONS[name]) <= documented | {"NotImplementedError"}


def raised_by(function: Callable[..., Any]) -> set[str]:
    """Return the errors raised by a function, or by functions of its module that it calls by name."""
    module = vars(inspect.getmodule(function))
    found, waiting, seen = set(), [function], set()
    while waiting:
        current = waiting.pop()
        seen.add(current)
        tree = ast.parse(textwrap.dedent(inspect.getsource(current)))
        for node in ast.walk(tree):
            if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call):
                found.add(ast.unparse(node.exc.func))
            elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                called = module.get(node.func.id)
                if (
                    inspect.isfunction(called)
                    and called.__module__ == module["__name__"]
                    and called not in seen
                ):
                    waiting.append(called)
    return found


def test_raised_errors_are_found_through_helpers():
    assert "ValueError" in raised_by(measurements.margin)  # by _labels
    assert raised_by(measurements.outputs) == set()


def test_every_public_name_is_in_the_reference():
    pages = "\n".join(page.read_text(encoding="utf-8") for page in (ROOT / "docs/api").glob("*.md"))
    for name, value in OBJECTS.items():
        # The page of measurements shows its whole module.
        if "." not in name and value is not measurements and not _is_ours(value):
            assert name in pages, name
