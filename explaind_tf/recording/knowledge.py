"""What is known of a training: the form of its data, the model's functions, and so the level of the recording."""

from typing import Any

from explaind_tf.errors import RefusedError
from explaind_tf.levels import CAUSE, SAMPLE
from explaind_tf.recording.exporting.declared_inputs import declares_inputs, input_structure
from explaind_tf.recording.exporting.pure_functions import PureFunctions, forward_function, pure_functions
from explaind_tf.recording.observing.batches import BatchForm
from explaind_tf.recording.replica_checks import refuse_state_of_one_replica
from explaind_tf.recording.session_state import Standing, Training
from explaind_tf.replicas import replica_count
from explaind_tf.runs.format.structure import Structure

_WAY_ON = "Give PathLogger(run_dir, model=...) a model that declares its inputs with keras.Input."


class Knowledge:
    """What is known of a training. It grows when the first step is traced, and shrinks if the step shows that it is wrong.

    Parameters
    ----------
    training : Training
        What is trained.
    standing : Standing
        The level of the recording, which may become lower.
    every : int or "auto"
        Steps from one keyframe to the next, as the user asked.

    Attributes
    ----------
    standing : Standing
        The level.
    form : BatchForm or None
        The form of the batches; None if they are not recorded, or not known yet.
    inputs : Structure
        Structure of one input of the model.
    functions : PureFunctions or None
        The model's functions; None if they are not known yet.
    """

    def __init__(self, training: Training, standing: Standing, every: Any) -> None:
        self._training, self._every = training, every
        self.standing = standing
        self.form: BatchForm | None = None
        self.inputs: Structure = ()
        self.functions: PureFunctions | None = None

    def learn(self, data: Any) -> None:
        """Learn what the data of a step show.

        Raises
        ------
        RefusedError
            If less is known than the user requires.
        """
        model = self._training.model
        self.form = form = self._form_of(data)
        self.inputs = input_structure(model, None, _WAY_ON) if form is None else form.inputs
        if form is not None and self.standing.level == SAMPLE:
            try:
                self.functions = pure_functions(model, form.inputs, form.targets, form.weights)
                if replica_count(model) > 1:
                    state = model.non_trainable_variables
                    refuse_state_of_one_replica(self.functions, len(model.trainable_variables), state)
            except RefusedError as error:
                self.standing.lower_to(CAUSE, error)
        if self.standing.level != SAMPLE:
            self._know_no_samples()

    def lower(self, error: RefusedError) -> None:
        """Forget the samples, since the first step shows that they do not explain it.

        Raises
        ------
        RefusedError
            If the user requires them.
        """
        self.standing.lower_to(CAUSE, error)
        self._know_no_samples()

    def _form_of(self, data: Any) -> BatchForm | None:
        model = self._training.model
        if model is not self._training.fitted:
            return None
        try:
            form = BatchForm.of(data)
        except RefusedError as error:
            if self.standing.level == SAMPLE:
                self.standing.lower_to(CAUSE, error)
            return None
        if model.run_eagerly and declares_inputs(model):
            return form.with_free_sizes(input_structure(model, None, _WAY_ON))
        return form

    def _know_no_samples(self) -> None:
        if self._every != 1:
            raise RefusedError(
                f"Steps between keyframes can be trained again only from batches, and this training cannot be recorded by "
                f"sample: {self.standing.reason} Record every step: PathLogger(run_dir, every=1, ...)."
            )
        self.form = None
        self.functions = forward_function(self._training.model, self.inputs)
