"""Reconciling: what a recipe asks for with what the dataset holds, so that nothing is mixed and nothing gets lost.

Pure functions of manifests: they are applied again whenever another driver has been quicker to write one.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace

from ..dataset.cards import ModalityCard, VocabularyCard
from ..dataset.manifest import CorpusCard, DatasetError, Manifest, changes, replace_options, vocabulary_digest


@dataclass(frozen=True)
class Request:
    """What a recipe asks for. replacing: modalities that may take the places of those that were made otherwise.

    corpus: as it is to be taken up, by somebody who has seen it as `seen`, None for not at all. take_changes: whether
    what has changed in it is taken up, too.
    """

    url: str
    corpus: CorpusCard
    seed: int
    views: dict
    units: dict[str, int]
    cards: dict[str, ModalityCard]
    replacing: frozenset[str] = frozenset()
    seen: CorpusCard | None = None
    take_changes: bool = False


class OvertakenError(DatasetError):
    """Another run has taken up the corpus meanwhile: what there is to do has to be planned again."""


def reconcile(now: Manifest | None, request: Request) -> Manifest:
    """The manifest with all that is asked for: new modalities beside the others, and as `pending` those that replace.

    Raises DatasetError where the dataset was made otherwise, and nothing says that it may be replaced, OvertakenError
    where its corpus isn't as the request has seen it.
    """
    if now is None:
        settings = (request.seed, request.views, request.units)
        return Manifest(request.corpus, *settings, request.cards)
    for name in ("seed", "views", "units"):
        if getattr(now, name) != getattr(request, name):
            raise DatasetError(
                f"{request.url}: was made with {name} = {getattr(now, name)}, and the recipe says "
                f"{getattr(request, name)}; go back to the former, or use another output"
            )
    _refuse_other_reading(now, request)
    if now.corpus not in (request.seen, request.corpus):
        raise OvertakenError(f"{request.url}: another run has taken up the corpus meanwhile: run the recipe again")
    modalities, pending = dict(now.modalities), dict(now.pending)
    cards = _with_pinned_vocabulary(now, request.cards)
    _refuse_unless_replacing(now, cards, request)
    for name, card in cards.items():
        current, waiting = now.modalities.get(name), now.pending.get(name)
        if waiting is not None and waiting.asked == card.asked:
            pending[name] = _merged(waiting, card, name in request.replacing)
        elif current is None:
            anew = any(n in pending and pending[n].labels_generation == g for n, g in card.requires.items())
            (pending if anew else modalities)[name] = card
        elif current.asked != card.asked:
            pending[name] = card
        else:
            merged = _merged(current, card, name in request.replacing)
            if merged.kept - current.kept and current.fitted:
                pending[name] = merged
            else:
                modalities[name] = merged
                if name in request.replacing:
                    pending.pop(name, None)
    new = replace(now, corpus=request.corpus, modalities=modalities, pending=pending)
    return replace(new, pending=_still_makeable(now, new))


def cards_for(manifest: Manifest, request: Request) -> dict[str, ModalityCard]:
    """What a run makes for the request, of a manifest that `reconcile` made. Raises DatasetError for what another run
    has replaced since."""
    found = {}
    for name, card in _with_pinned_vocabulary(manifest, request.cards).items():
        fitting = [one for one in reversed(manifest.cards_of(name)) if one.asked == card.asked]
        if not fitting:
            raise DatasetError(
                f"{request.url}: {name} was replaced by another run meanwhile; look at `tokenloom history "
                f"{request.url}`, and run this recipe again with --replace {name} if it is to hold"
            )
        found[name] = fitting[0]
    return found


def completed(now: Manifest | None, done: Collection[str], cards: Mapping[str, ModalityCard]) -> Manifest:
    """The manifest in which the pending modalities `done` have taken their places, where they are still those."""
    assert now is not None
    ready = {name: now.pending[name] for name in done if name in now.pending and now.pending[name] == cards[name]}
    pending = {name: card for name, card in now.pending.items() if name not in ready}
    return replace(now, modalities={**now.modalities, **ready}, pending=pending)


def _refuse_other_reading(now: Manifest, request: Request) -> None:
    """The samples may be others, under other keys: then all modalities are replaced together, or none."""
    if request.corpus.reading == now.corpus.reading:
        return
    left = [name for name in now.modalities if name not in request.replacing]
    if left:
        raise DatasetError(
            f"{request.url}: {left[0]} was made of the corpus as it is read by {now.corpus.reading or 'default'}, and "
            f"the recipe reads it by {request.corpus.reading or 'default'}: go back to the former; or have the recipe "
            f"make all of {', '.join(now.modalities)}, with --replace for each; or use another output"
        )


def _still_makeable(old: Manifest, new: Manifest) -> dict[str, ModalityCard]:
    """What is pending, less that which was to be made from something pending that has been taken back."""
    left = dict(new.pending)
    for name, card in new.pending.items():  # what others need comes first
        for need, generation in card.requires.items():
            held = [cards[need].labels_generation for cards in (new.modalities, left) if need in cards]
            if need in old.pending and old.pending[need].labels_generation == generation and generation not in held:
                left.pop(name, None)
    return left


def _merged(held: ModalityCard, asked: ModalityCard, replacing: bool) -> ModalityCard:
    """What is held, with the tokenizer of whoever fitted it, the first to publish before the other, and all that
    either keeps; where it is being replaced, what is asked for is kept, and no more."""
    kept = asked.kept if replacing else held.kept | asked.kept
    return replace(
        held,
        tokens=held.tokens if held.fitted else asked.tokens,
        keeps_tokens="tokens" in kept,
        keeps_labels="labels" in kept,
    )


def _refuse_unless_replacing(now: Manifest, cards: Mapping[str, ModalityCard], request: Request) -> None:
    """DatasetError naming all that was made otherwise, and what is to be said for it to be made anew."""
    others = {
        name: now.modalities[name]
        for name, card in cards.items()
        if name in now.modalities and name not in request.replacing and not _is_held(now, name, card)
    }
    first = [name for name in others if not others.keys() & cards[name].requires.keys()]
    if not first:
        return
    hanging = [name for name in others if name not in first]
    also = f" (with what is made from it: {', '.join(hanging)})" if hanging else ""
    told = ["\n  ".join([f"{name} was made differently:", *changes(others[name], cards[name])]) for name in first]
    raise DatasetError(
        f"{request.url}: " + "\n".join(told) + f"\n  Make that anew with {replace_options(first)}{also}, beside the "
        f"old, whose place it takes when it is complete; or use another output"
    )


def _is_held(now: Manifest, name: str, card: ModalityCard) -> bool:
    """Whether the modality is, or is being made, as the card asks for it."""
    return any(held.asked == card.asked for held in now.cards_of(name))


def _with_pinned_vocabulary(now: Manifest, cards: Mapping[str, ModalityCard]) -> dict[str, ModalityCard]:
    """The cards, with the dataset's own vocabulary where it may serve: where all that it was trained on still is as it
    was. Texts that come later take it as it is."""
    texts = {name: card.labels_generation for name, card in cards.items() if card.kind["kind"] == "text"}
    present = {name: card.labels_generation for name, card in now.modalities.items()}
    pinned = [found for held in (now.pending, now.modalities) if (found := _vocabulary_of(held))]

    def chosen(wanted: VocabularyCard) -> VocabularyCard:
        if wanted.given:
            return wanted
        for one in pinned:
            if not texts or (not one.given and one.trained_on.items() <= {**present, **texts}.items()):
                return one
        return wanted

    return {
        name: replace(card, tokens=replace(card.tokens, vocabulary=chosen(card.tokens.vocabulary)))
        if card.tokens and card.tokens.vocabulary
        else card
        for name, card in cards.items()
    }


def _vocabulary_of(cards: Mapping[str, ModalityCard]) -> VocabularyCard | None:
    """The fitted vocabulary that modalities share."""
    digest = vocabulary_digest(cards)
    held = [card.tokens.vocabulary for card in cards.values() if card.tokens and card.tokens.vocabulary]
    return next((one for one in held if digest and one.digest == digest), None)
