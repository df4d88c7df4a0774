"""Targets one after the other, each given those before it: 4M's chained generation (Mizrahi et al. 2023, section 3)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from ...tokenizers.contract.grammar import Sentence
from ...tokenizers.contract.special_tokens import EOS
from ..model.config import ModalityConfig
from ..model.fourm import FourM
from .draws import Draws
from .images import Decided, ImageScheme, Step, image_steps
from .passes import Guidance
from .schedules import TokenSchedule, temperatures, token_counts
from .state import Known, State, TextIds, merged
from .texts import Said, said_rows, text_steps

Watch = Callable[[str, "Decided | Said"], None]


@dataclass(frozen=True)
class Target:
    """How a modality is generated.

    scheme: how an image's places are decided; a text is said from left to right. steps, token_schedule: of an image.
    most: tokens of a text behind its start. stop: the id that ends it; by default the sentinel behind its last gap's.
    sentence: begins a text of which only what a grammar allows is said, up to its [EOS], in place of `most` and `stop`:
    whatever is drawn parses. None: any tokens may be said.
    temperature_schedule: of an image; see schedules. top_k, top_p: see
    `sampling.kept`. weight: how much the conditions count; 1 is as they are, above that more. weights: of each
    condition, where several are composed.
    """

    name: str
    scheme: ImageScheme = "roar"
    steps: int = 1
    token_schedule: TokenSchedule = "cosine"
    most: int = 256
    stop: int | None = None
    sentence: Callable[[], Sentence | None] = lambda: None
    temperature: float = 1.0
    temperature_schedule: str = "constant"
    top_k: float = 0
    top_p: float = 0.0
    weight: float = 1.0
    weights: tuple[float, ...] = field(default=())

    def schedule(self, places: int) -> list[Step]:
        """Of an image of which so many places aren't known."""
        counts = token_counts(places, self.steps, self.token_schedule)
        falls = temperatures(counts, self.temperature, self.temperature_schedule)
        return [Step(*one) for one in zip(counts, falls, strict=True)]


def generate(
    model: FourM,
    state: State,
    targets: Sequence[Target],
    text: TextIds,
    draws: Draws,
    conditions: Sequence[str] = (),
    grow: bool = False,
    watch: Watch = lambda target, step: None,
) -> State:
    """What is known once all targets are. Where part of an image is known, the rest is generated; of a text, what its
    sentinels stand for.

    conditions: the modalities that a target's weight strengthens. grow: images that were generated become conditions.
    watch: is told each step.

    Raises KeyError for a target that the model doesn't have, ValueError for a sentence of which some is known.
    """
    kinds = {one.name: one for one in model.config.targets}
    state = _begun(state, [kinds[target.name] for target in targets], text)
    strengthened = list(conditions)
    for target in targets:
        guidance = Guidance(state)
        if target.weight != 1 and strengthened:
            base = state.without(model.config, strengthened, text)
            guidance = Guidance(base, (state,), (target.weight,))
        if kinds[target.name].form == "text":
            state = state.having(target.name, _text(model, guidance, target, text, draws, watch))
        else:
            state = state.having(target.name, _image(model, guidance, target, draws, watch))
            strengthened += [target.name] if grow else []
    return state


def compose(
    model: FourM,
    state: State,
    conditions: Sequence[State],
    targets: Sequence[Target],
    draws: Draws,
    watch: Watch = lambda target, step: None,
) -> State:
    """Images that several conditions pull at, each by its weight, which may be negative. What was generated is a
    condition of its own for the targets behind it, and takes the next weight.

    state: what is known beside the conditions. Raises ValueError where a target hasn't as many weights as there are
    conditions, KeyError for a target that the model doesn't have, or that is no image.
    """
    kinds = {one.name: one for one in model.config.targets if one.form == "grid"}
    pulling, done = list(conditions), state
    for target in targets:
        states = [_begun(one, [kinds[target.name]], None) for one in (state, *pulling)]
        guidance = Guidance(states[0], tuple(states[1:]), target.weights)
        made = _image(model, guidance, target, draws, watch)
        pulling.append(State(state.samples, {target.name: made}))
        done = done.having(target.name, made)
    return done


def _begun(state: State, kinds: Sequence[ModalityConfig], text: TextIds | None) -> State:
    """With nothing known of targets that aren't given: a text is one gap."""
    for kind in kinds:
        if kind.name not in state.known:
            nothing = Known.nothing(state.samples, kind.length)
            gap = nothing if text is None or kind.form != "text" else Known.texts([[text.start]] * state.samples)
            state = state.having(kind.name, gap)
    return state


def _image(model: FourM, guidance: Guidance, target: Target, draws: Draws, watch: Watch) -> Known:
    known = guidance.base.known[target.name]
    steps = target.schedule(int((~known.used).sum(dim=1).max()))
    for decided in image_steps(model, guidance, target.name, target.scheme, steps, draws, target.top_k, target.top_p):
        watch(target.name, decided)
        guidance = decided.guidance
    return guidance.base.known[target.name]


def _text(model: FourM, guidance: Guidance, target: Target, text: TextIds, draws: Draws, watch: Watch) -> Known:
    given = (guidance.conditions or (guidance.base,))[0].known[target.name].rows
    ends = [text.ends(row) for row in given]
    starts = [text.start if one is None else one[0] for one in ends]
    stops = [-1 if one is None else one[1] if target.stop is None else target.stop for one in ends]
    sentences, most = _sentences(target, given, text), target.most
    if sentences:
        stops, most = [EOS] * len(given), max(one.room for one in sentences) + 1

    def watched() -> Iterator[Said]:
        freedom = target.temperature, target.top_k, target.top_p
        for said in text_steps(model, guidance, target.name, starts, draws, *freedom, sentences):
            watch(target.name, said)
            yield said

    rows = said_rows(watched(), starts, stops, most, [one is None for one in ends])
    return Known.texts([merged(*pair, text) for pair in zip(given, rows, strict=True)])


def _sentences(target: Target, given: Sequence[Sequence[int]], text: TextIds) -> list[Sentence]:
    """One of each sample, where the target has such."""
    sentences = [one for _ in given if (one := target.sentence())]
    if sentences and any(list(row) != [text.start] for row in given):
        raise ValueError(f"{target.name}: a sentence is a whole text, and some of it is known")
    return sentences
