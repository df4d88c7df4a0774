"""UnitPayload: one unit on its way through the stages, as a row of a Ray Data block."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from ..checks.reasons import Group
from ..corpus.corpus import Rejection, Sample, UnitSamples
from ..corpus.units import Unit
from ..dataset.ledger import Failure
from .chunks import chunk_bounds
from .spent import Spent

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass
class UnitPayload:
    """A unit's samples with what the stages so far made of them.

    todo: the modalities that the output lacks for this unit. kept: modalities whose labels the output has, or `labels`
    had from the beginning, and revisions: theirs, where they aren't 0. keys: only these samples of each modality are
    tried again. samples: images are None once no later stage looks at pixels. chunks: stretches of samples that are
    labelled together, the same in all stages. labels: encoded labels that later stages need, by modality, one list per
    sample, or per sample and view for labelers on views. failures: of modalities that later stages may need. done:
    modalities written so far, with (rows, failed). reasons: why those failed. spent: what the unit took of each stage,
    and of the reading before them. bytes: of the encoded images, or of the texts, as they lie
    in the corpus. again: bytes of the corpus shard that were read once more to come to the unit. decodes: times that an
    image of the unit was decoded.
    """

    unit: Unit
    todo: tuple[str, ...]
    samples: list[Sample]
    rejected: list[Rejection]
    chunks: list[tuple[int, int]]
    kept: tuple[str, ...] = ()
    revisions: dict[str, int] = field(default_factory=dict)
    keys: dict[str, list[str]] | None = None
    labels: dict[str, list[bytes | None]] = field(default_factory=dict)
    failures: list[Failure] = field(default_factory=list)
    done: dict[str, tuple[int, int]] = field(default_factory=dict)
    reasons: list[Group] = field(default_factory=list)
    spent: list[Spent] = field(default_factory=list)
    bytes: int = 0
    again: int = 0
    decodes: int = 0

    @classmethod
    def of(cls, samples: UnitSamples, todo: tuple[str, ...], **more: Any) -> UnitPayload:
        """A unit that no stage has seen. more: what is known of it beside its samples."""
        size = samples.packed or sum(sample.size for sample in samples.samples)
        bounds = chunk_bounds(samples.samples)
        unit, again = samples.unit, samples.again
        return cls(unit, todo, samples.samples, samples.rejected, bounds, bytes=size, again=again, **more)

    def to_table(self) -> pa.Table:
        """One row: the bulk (images, labels) as Arrow lists of binaries, the rest as JSON."""
        import pyarrow as pa

        head = {
            "unit": self.unit.name,
            "todo": self.todo,
            "keys": [sample.key for sample in self.samples],
            "fields": [sample.fields for sample in self.samples],
            "rejected": [asdict(rejection) for rejection in self.rejected],
            "chunks": self.chunks,
            "kept": self.kept,
            "revisions": self.revisions,
            "again": self.keys,
            "labels": list(self.labels),
            "failures": [asdict(failure) for failure in self.failures],
            "done": self.done,
            "reasons": [asdict(group) for group in self.reasons],
            "spent": [asdict(spent) for spent in self.spent],
            "bytes": self.bytes,
            "read again": self.again,
            "decodes": self.decodes,
        }
        blobs = [[sample.image for sample in self.samples], *self.labels.values()]
        return pa.table(
            {
                "head": pa.array([json.dumps(head)], pa.large_string()),
                "blobs": pa.array([blobs], pa.large_list(pa.large_list(pa.large_binary()))),
            }
        )

    @classmethod
    def from_table(cls, table: pa.Table) -> Iterator[UnitPayload]:
        """The payloads in a block, one per row."""
        for head_text, blobs in zip(table["head"], table["blobs"], strict=True):
            head: dict[str, Any] = json.loads(head_text.as_py())
            images, *labels = blobs.as_py()
            unit = Unit.parse(head["unit"])
            assert unit is not None
            rows = zip(head["keys"], images, head["fields"], strict=True)
            yield cls(
                unit=unit,
                todo=tuple(head["todo"]),
                samples=[Sample(key, image, fields) for key, image, fields in rows],
                rejected=[Rejection(**rejection) for rejection in head["rejected"]],
                chunks=[(start, stop) for start, stop in head["chunks"]],
                kept=tuple(head["kept"]),
                revisions=head["revisions"],
                keys=head["again"],
                labels=dict(zip(head["labels"], labels, strict=True)),
                failures=[Failure(**failure) for failure in head["failures"]],
                done={name: tuple(result) for name, result in head["done"].items()},
                reasons=[Group(**group) for group in head["reasons"]],
                spent=[Spent(**spent) for spent in head["spent"]],
                bytes=head["bytes"],
                again=head["read again"],
                decodes=head["decodes"],
            )
