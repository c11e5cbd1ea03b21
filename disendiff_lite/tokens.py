"""Modifier tokens: new words for the text encoder, and where they and their classes stand in a prompt.

A *concept* is one thing of the reference picture, for example this particular cat. It is written with a *modifier
token* of its own before a *class token*: `<new1> cat`. Positions are found by token id, never by counting words,
because a class can be several sub-word tokens and need not follow its modifier directly (`<new1> big cat`).
"""

import gzip
import importlib.util
import json
import re
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import StableDiffusionPipeline
from transformers import CLIPTokenizer, PreTrainedTokenizerBase

from disendiff_lite.support.errors import UserError
from disendiff_lite.support.pieces import piece_labels
from disendiff_lite.support.text import enumeration

PROMPT_LENGTH = 77  # positions of CLIP's text encoder, the start and end marks included
MERGES = 49152 - 256 - 2  # the merges of the vocabulary file that CLIP uses; the rest of the file is left over
WORD_END = "</w>"  # how CLIP's vocabulary marks a piece that ends a word
MODIFIER = re.compile(r"<[^<>\s]+>")  # what a modifier looks like

# "pll" and "ucd" each stand in CLIP's vocabulary twice, inside a word and at its end. These are the entries that the
# published code starts its modifiers from (ids 42170, 47629, 43514).
PUBLISHED_INITIALIZERS = {"ktn": "ktn", "pll": "pll", "ucd": "ucd" + WORD_END}


@dataclass(frozen=True)
class ConceptPositions:
    """Where one concept stands in a tokenized prompt; position 0 is the start mark.

    modifier: position of the modifier token.
    class_: positions of the class, more than one if it is several sub-word tokens.
    """

    modifier: int
    class_: tuple[int, ...]


def clip_tokenizer() -> CLIPTokenizer:
    """CLIP's own tokenizer, 49,408 tokens with Stable Diffusion's ids, from open_clip's wheel, without a download."""
    # Finding the package without importing it saves seconds: open_clip imports torchvision.
    wheel = Path(importlib.util.find_spec("open_clip").origin).parent
    with gzip.open(wheel / "bpe_simple_vocab_16e6.txt.gz", "rt", encoding="utf-8") as file:
        merges = file.read().split("\n")[1 : MERGES + 1]  # the first line is a title
    # The order of the entries gives their ids: bytes, bytes that end a word, merges, marks.
    letters = _byte_letters()
    entries = [*letters, *(letter + WORD_END for letter in letters), *(merge.replace(" ", "") for merge in merges)]
    entries += ["<|startoftext|>", "<|endoftext|>"]
    with tempfile.TemporaryDirectory() as folder:
        ids = {entry: number for number, entry in enumerate(entries)}
        Path(folder, "vocab.json").write_text(json.dumps(ids), encoding="utf-8")
        Path(folder, "merges.txt").write_text("\n".join(["#version: 0.2", *merges]), encoding="utf-8")
        return CLIPTokenizer.from_pretrained(folder, model_max_length=PROMPT_LENGTH)


def add_modifiers(pipe: StableDiffusionPipeline, modifiers: Sequence[str], initializers: Sequence[str]) -> list[int]:
    """Teach the pipeline's tokenizer and text encoder new words, in place; nothing changes if one of them is refused.

    modifiers: the new words, each in angle brackets: "<new1>".
    initializers: entries of the vocabulary, at least as many as modifiers; the i-th new embedding row is a copy of the
        i-th one's row. A rare token starts a concept without a meaning of its own.

    Returns the new tokens' ids. Raises UserError if a modifier is already a word or is not in angle brackets, if an
    initializer is not one entry of the vocabulary, or if there are too few initializers.
    """
    check_modifiers(pipe.tokenizer, modifiers, initializers)
    sources = [_entry_id(pipe.tokenizer, name) for name in initializers[: len(modifiers)]]

    pipe.tokenizer.add_tokens(list(modifiers))
    ids = pipe.tokenizer.convert_tokens_to_ids(list(modifiers))
    _grow_embeddings(pipe.text_encoder, len(pipe.tokenizer))
    rows = pipe.text_encoder.get_input_embeddings().weight  # (vocabulary, dim)
    with torch.no_grad():
        rows[ids] = rows[sources]
    return ids


def check_modifiers(tokenizer: PreTrainedTokenizerBase, modifiers: Sequence[str], initializers: Sequence[str]) -> None:
    """Raise UserError if add_modifiers would refuse these words."""
    if len(initializers) < len(modifiers):
        raise UserError(
            f"There are {len(modifiers)} modifiers but {len(initializers)} initial tokens: give each modifier one."
        )
    for index, modifier in enumerate(modifiers):
        _check_modifier(tokenizer, modifier, taken=modifiers[:index])
        _entry_id(tokenizer, initializers[index])


def find_positions(
    tokenizer: PreTrainedTokenizerBase, prompt: str, modifiers: Sequence[str], classes: Sequence[str]
) -> list[ConceptPositions]:
    """Positions of each concept's modifier and class in the tokenized prompt, one entry a class, in the order of
    `classes`.

    The i-th modifier belongs to the i-th class; modifiers beyond the classes are not looked for. A class is the first
    occurrence after its modifier, also if other words stand between them.

    Raises UserError if the prompt is too long for the text encoder, if there are more classes than modifiers, if a
    modifier is unknown to the tokenizer or not in the prompt, if a class does not come after its modifier, or if two
    concepts share a token.
    """
    check_concepts(classes, modifiers)
    ids = prompt_ids(tokenizer, prompt)
    found = [_find_concept(tokenizer, prompt, ids, *pair) for pair in zip(modifiers, classes)]
    _check_apart(prompt, list(zip(found, modifiers, classes)))
    return found


def prompt_ids(tokenizer: PreTrainedTokenizerBase, prompt: str) -> list[int]:
    """The prompt's token ids, with the marks at both ends; UserError if they are more than the text encoder reads."""
    ids = tokenizer(prompt, verbose=False).input_ids
    if len(ids) > tokenizer.model_max_length:
        raise UserError(
            f"The prompt has {len(ids)} tokens but the text encoder reads {tokenizer.model_max_length}: "
            f"shorten it ({prompt[:60]!r}...)."
        )
    return ids


def check_prompt(tokenizer: PreTrainedTokenizerBase, prompt: str) -> None:
    """Raise UserError if the prompt holds an unknown modifier or is too long: it would be drawn as if all were well."""
    for modifier in MODIFIER.findall(prompt):
        if len(tokenizer(modifier, add_special_tokens=False).input_ids) != 1:
            raise UserError(f"The model does not know {modifier}: load the run that learned it, or mend its spelling.")
    prompt_ids(tokenizer, prompt)


def token_words(tokenizer: PreTrainedTokenizerBase, prompt: str) -> list[str]:
    """The prompt's tokens as readable text, one each, the marks at both ends as "[start]" and "[end]".

    A letter of several tokens is shown in each of them, with its number: "猫 1/3".
    """
    pieces = {number: token.content.encode() for number, token in tokenizer.added_tokens_decoder.items()}
    pieces |= {tokenizer.bos_token_id: b"[start]", tokenizer.eos_token_id: b"[end]"}
    letters = _byte_letters()
    own = [ord(letter) for letter in letters if ord(letter) < 256]  # bytes that are written as themselves
    values = dict(zip(letters, [*own, *sorted(set(range(256)) - set(own))]))
    ids = tokenizer(prompt).input_ids
    # By their spelling in the vocabulary: a copied tokenizer decodes with the marks of word ends, an original without.
    for number, token in zip(ids, tokenizer.convert_ids_to_tokens(ids)):
        if number not in pieces:
            pieces[number] = bytes(values[letter] for letter in token.removesuffix(WORD_END))
    return piece_labels([pieces[number] for number in ids])


def compose_prompt(classes: Sequence[str], modifiers: Sequence[str], template: str = "photo of a {}") -> str:
    """The prompt that names every concept: "photo of a <new1> cat and <new2> dog"; with three, "..., ... and ...".

    template: text with one {}. Raises UserError if it has none, if there is no class, or more classes than modifiers.
    """
    check_concepts(classes, modifiers)
    if template.count("{}") != 1:
        raise UserError(f'The template {template!r} must hold {{}} once, where the concepts go: "photo of a {{}}".')
    return template.replace("{}", enumeration([f"{modifier} {name}" for modifier, name in zip(modifiers, classes)]))


def class_caption(classes: Sequence[str]) -> str:
    """The caption of the plain classes, for regularisation images: "a cat and a dog". UserError without a class."""
    check_concepts(classes, classes)
    return enumeration([f"{'an' if name[0] in 'aeiou' else 'a'} {name}" for name in classes])


def check_concepts(classes: Sequence[str], modifiers: Sequence[str]) -> None:
    """Raise UserError unless there are classes, none of them empty, and at least as many modifiers."""
    if not classes or not all(name.strip() for name in classes):
        raise UserError("A class name is missing: give one word for each concept, for example cat,dog.")
    if len(classes) > len(modifiers):
        raise UserError(
            f"There are {len(classes)} classes ({', '.join(classes)}) but {len(modifiers)} modifiers: "
            "give each class a modifier of its own, such as <new1>."
        )


def _find_concept(
    tokenizer: PreTrainedTokenizerBase, prompt: str, ids: list[int], modifier: str, name: str
) -> ConceptPositions:
    pieces = tokenizer(modifier, add_special_tokens=False).input_ids
    if len(pieces) != 1:
        raise UserError(f"The model does not know the modifier {modifier}: add or load it before using it in a prompt.")
    if pieces[0] not in ids:
        raise UserError(f"The modifier {modifier} is not in the prompt {prompt!r}: write it before its class.")
    modifier_at = ids.index(pieces[0])

    wanted = tokenizer(name, add_special_tokens=False).input_ids
    tokens = tokenizer.convert_ids_to_tokens(ids)
    for start in range(modifier_at + 1, len(ids) - len(wanted) + 1):
        # The tail of a longer word can have the same ids: a word begins only after a whole word, a mark or a modifier.
        begins_word = tokens[start - 1].endswith(WORD_END) or ids[start - 1] in tokenizer.added_tokens_decoder
        if begins_word and ids[start : start + len(wanted)] == wanted:
            return ConceptPositions(modifier_at, tuple(range(start, start + len(wanted))))
    raise UserError(f"The class {name!r} does not come after {modifier} in the prompt {prompt!r}: write it there.")


def _check_apart(prompt: str, concepts: Sequence[tuple[ConceptPositions, str, str]]) -> None:
    """Raise UserError, with the prompt that would be right, if two concepts (place, modifier, class) share a token."""
    taken, lacking = set(), []
    for place, modifier, name in sorted(concepts, key=lambda concept: -concept[0].modifier):
        if place.modifier in taken:
            raise UserError(f"{modifier} stands for two concepts in {prompt!r}: give each class one of its own.")
        if taken & set(place.class_):  # the word belongs to the modifier nearest to it
            lacking.append((modifier, name))
        taken |= {place.modifier, *place.class_}
    right = prompt
    for modifier, name in lacking:
        written = re.compile(re.escape(modifier), re.IGNORECASE)
        right = written.sub(lambda found, name=name: f"{found[0]} {name}", right, count=1)
    if lacking:
        raise UserError(f"Two concepts share a word of the prompt {prompt!r}: give each its own, as in {right!r}.")


def _check_modifier(tokenizer: PreTrainedTokenizerBase, modifier: str, taken: Sequence[str]) -> None:
    # What reads as one piece is a word already; case is folded because CLIP's tokenizer folds it.
    known = len(tokenizer.tokenize(modifier)) == 1 or modifier.lower() in [other.lower() for other in taken]
    if known:
        raise UserError(f"The modifier {modifier!r} is already a word of this model: choose another, such as <new9>.")
    # Without brackets the new token would also match inside ordinary words and change how they are read.
    if not MODIFIER.fullmatch(modifier):
        raise UserError(f"The modifier {modifier!r} must be one word in angle brackets, such as <new1>.")


def _entry_id(tokenizer: PreTrainedTokenizerBase, name: str) -> int:
    vocabulary = tokenizer.get_vocab()
    for entry in (PUBLISHED_INITIALIZERS.get(name), name + WORD_END, name):
        if entry in vocabulary:
            return vocabulary[entry]
    raise UserError(f"The initial token {name!r} is not one entry of the model's vocabulary: choose one, such as ktn.")


def _grow_embeddings(text_encoder: torch.nn.Module, size: int) -> None:
    rows = text_encoder.get_input_embeddings().weight
    # The rows that are about to be overwritten are first drawn at random: keep that from moving the global generators.
    with torch.random.fork_rng(devices=[rows.device] if rows.device.type == "cuda" else []):
        text_encoder.resize_token_embeddings(max(size, len(rows)), mean_resizing=False)


def _byte_letters() -> list[str]:
    # CLIP writes each byte as one visible letter: itself where it prints, else one from 256 upwards.
    printing = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    return [chr(byte) for byte in printing] + [chr(256 + index) for index in range(256 - len(printing))]
