"""What is measured of a model between two epochs: its scores and its gradient."""

from __future__ import annotations

from collections.abc import Callable

from vgaudit.errors import CannotRun, VgauditError
from vgaudit.flow import GradientFlow
from vgaudit.training.course import Course
from vgaudit.training.method import Scores
from vgaudit.training.metrics import score
from vgaudit.training.trainee import Sharded, Trainee


class Judge:
    """Scores and scans models on the samples of a course; both are collective.

    Args:
        course: the data, and who trains.
        note: tells the user one sentence.
    """

    def __init__(self, course: Course, note: Callable[[str], None]) -> None:
        self._course, self._note = course, note

    def flow(self, trainee: Trainee) -> GradientFlow | None:
        """Returns a scan of the model as it is, on the first rank.

        None on the others, where nothing is to be measured, and where that fails.
        """
        if self._course.scan is None:
            return None
        shown = trainee.show()
        if not self._course.crew.first:
            return None
        try:
            return self._course.scan(shown)
        except VgauditError as error:
            self._note(f"the attenuation was not measured: {error.message}")
            return None

    def scores(self, trainee: Trainee) -> Scores | None:
        """Returns the validation scores as the model is; None without validation.

        Raises:
            CannotRun: no validation sample can be used.
        """
        held = self._course.feed.judged
        if not held:
            return None
        scores = self._score(trainee)
        if scores is None:
            raise CannotRun(
                f"no validation sample is usable: all {held} hold NaN or infinity, or "
                "cannot be read",
                hint="look at how the data is read and scaled",
            )
        if scores.samples < held:
            self._note(
                f"{held - scores.samples} of {held} validation samples hold NaN or "
                "infinity, or cannot be read: every score is without them"
            )
        return scores

    def sure_scores(self, trainee: Trainee) -> Scores:
        """Returns the scores where there are validation samples.

        Raises:
            CannotRun: none of them can be used.
        """
        scores = self.scores(trainee)
        assert scores is not None
        return scores

    def _score(self, trainee: Trainee) -> Scores | None:
        course, crew = self._course, self._course.crew
        trainee.settle()
        model, loss = trainee.model, course.loss
        if isinstance(trainee, Sharded):
            # Each pass gathers the weights of all ranks: all run the same batches.
            return score(model, course.feed.validation(), loss, course.device)
        batches = course.feed.validation(crew.part)
        return score(model, batches, loss, course.device, crew=crew)
