"""The page about an evaluation, with its figures as JSON beside it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING

from ...pipeline.commands.report import ReportFile
from .evaluate import Evaluation
from .tables import headline, notes, sections

if TYPE_CHECKING:
    from typing_extensions import Self


class EvaluationReport(ReportFile):
    """NAME.html at a path or URL, and NAME.json beside it once the evaluation is done."""

    @contextmanager
    def begun(self, checkpoint: str) -> Iterator[Self]:
        """The page is there from the beginning, and says what ended the block where that is no result.

        Raises StorageError where it can't be written.
        """
        self.write([f"evaluating {checkpoint}"], [], last=False)
        try:
            yield self
        except BaseException as error:
            self.rewrite([f"stopped: {error}" if isinstance(error, Exception) else "stopped"], [], last=True)
            raise

    def ended(self, found: Evaluation) -> None:
        """Raises StorageError."""
        self._store.replace(f"{self._name.rpartition('.')[0]}.json", (as_json(found) + "\n").encode())
        self.write([headline(found), *(f"note: {note}" for note in notes(found))], sections(found), last=True)


def as_json(found: Evaluation) -> str:
    return json.dumps(asdict(found), indent=2)
