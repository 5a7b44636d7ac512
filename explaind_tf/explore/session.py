"""`Session`: a run, the inputs that are looked at, and what was asked so far."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from explaind_tf.explore.asker import Asker, Stage, State
from explaind_tf.explore.inputs import Inputs, Shown
from explaind_tf.explore.kept import Kept
from explaind_tf.explore.questions import LOAD, Question, digest_of, questions_of
from explaind_tf.explore.view import View
from explaind_tf.progress import Progress
from explaind_tf.runs import WeightPath

if TYPE_CHECKING:  # the page is there before TensorFlow is imported
    from explaind_tf.attribution.attributable import Attributable
    from explaind_tf.explore.computing import Loaded, Measure


@dataclass(frozen=True)
class About:
    """What the page is about.

    Attributes
    ----------
    title : str
        Name of the run.
    opening : str
        Python that opens it as ``run``.
    tolerance : float
        Of the refined answers.
    where_kept : str
        Where answers are kept, in words.
    """

    title: str
    opening: str
    tolerance: float
    where_kept: str


class Session:
    """A run, the inputs that are looked at, and what was asked so far.

    Parameters
    ----------
    about : About
        What the page says of it.
    shown : Shown
        The inputs. Its run is only read by the page.
    open_to_ask : callable
        Opens the run that is asked. Called in the answering thread.
    measure : callable, optional
        Says what is accounted for, once there are predictions.
    kept : Kept
        Answers on disk.
    """

    def __init__(
        self,
        about: About,
        shown: Shown,
        open_to_ask: "Callable[[], Attributable]",
        measure: "Measure | None",
        kept: Kept,
    ) -> None:
        self.about, self.shown, self.kept = about, shown, kept
        self._open, self._measure = open_to_ask, measure
        self.asker = Asker(self._answer, self._keep)
        self.complaint = ""  # why answers are not kept

    @property
    def inputs(self) -> Inputs:
        """The inputs."""
        return self.shown.inputs

    @property
    def run(self) -> WeightPath:
        """The run as the page reads it."""
        return self.shown.run

    def start(self) -> None:
        """Begin to load the model."""
        self.kept.clean()
        self.asker.start()
        self.asker.ask(LOAD)

    @property
    def loading(self) -> State:
        """Whether the model is loaded."""
        return self.asker.state(LOAD)

    @property
    def loaded(self) -> "Loaded | None":
        """What is known once the model is loaded."""
        stage = self.loading.stage
        return None if stage is None else stage.ledger

    def ask(self, view: View, *, again: bool = False) -> list[tuple[Question, State]]:
        """Ask what a view shows, and return what is known about each question."""
        return [(question, self._ask(question, again)) for question in self.questions(view)]

    def questions(self, view: View) -> tuple[Question, ...]:
        """Return the questions whose answers a view shows; none before the model is loaded."""
        loaded = self.loaded
        return () if loaded is None else questions_of(self.sound(view), loaded.sizes)

    def sound(self, view: View) -> View:
        """Return a view without what this run does not have: an address may be that of another run."""
        loaded = self.loaded
        inputs = tuple(position for position in view.inputs if position < len(self.shown))
        if loaded is None:
            return replace(view, inputs=inputs)
        known = self.samples_by_text
        return replace(
            view,
            inputs=inputs,
            output=view.output if view.output < len(loaded.outputs) else 0,
            step=view.step if view.step is not None and view.step < loaded.sizes.steps else None,
            layer=view.layer if view.layer in loaded.run.layers else None,
            samples=tuple(text for text in view.samples if text in known),
            group=view.group if view.group in loaded.groups else None,
        )

    @property
    def samples_by_text(self) -> dict[str, Any]:
        """The ids of the training samples by their text; none if the run cannot tell them apart."""
        loaded = self.loaded
        return self.shown.sample_ids if loaded is not None and loaded.sizes.samples else {}

    def chosen_samples(self, view: View) -> list[Any]:
        """Return the ids of the samples that a view has chosen: those of a group, or one by one."""
        loaded = self.loaded
        if loaded is not None and view.group in loaded.groups:
            return list(loaded.groups[view.group])
        known = self.samples_by_text
        return [known[text] for text in view.samples if text in known]

    def _ask(self, question: Question, again: bool) -> State:
        if self.asker.state(question).status == "unknown" and (found := self._read(question)) is not None:
            self.asker.know(question, Stage(found, is_final=True))
        return self.asker.ask(question, again=again)

    def _read(self, question: Question) -> Any:
        digest = self._digest(question)
        try:
            return self.kept.read(digest)
        except (OSError, ValueError, KeyError) as error:
            self.complaint = f"A kept answer was damaged ({error}) and is computed again."
            self.kept.forget(digest)
            return None

    def _keep(self, question: Question, stage: Stage) -> None:
        if question == LOAD:
            return
        try:
            self.kept.write(self._digest(question), stage.ledger)
        except OSError as error:
            self.complaint = f"Answers cannot be kept: {error}."

    def _digest(self, question: Question) -> str:
        loaded = self.loaded
        assert loaded is not None  # nothing else is asked before
        return digest_of(question, loaded.about)

    def _answer(self, question: Question, progress: Progress) -> Iterator[Stage]:
        # Imports TensorFlow, which takes seconds, in this thread.
        from explaind_tf.explore import computing

        if question == LOAD:
            with progress.task("Load TensorFlow and the model", 1) as advance:
                loaded: Any = computing.load(self._open(), self.inputs, self._measure, self.about.tolerance)
                # After the run that is asked, so that the page knows all samples that answers name.
                self.shown.read_again()
                advance()
            yield Stage(loaded, is_final=True)
            return
        assert self.loaded is not None  # nothing else is asked before
        yield from computing.stages_of(self.loaded, self.inputs, question, self.about.tolerance, progress)
