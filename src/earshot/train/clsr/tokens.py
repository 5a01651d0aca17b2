"""Written words as the passage model learns them: word pieces, and a table of what each sounds like and means.

In: words, a tokenizer, and for the table a word encoder and a text encoder. Out: ids, and rows for an output layer.
Knows nothing of speech.
"""

from __future__ import annotations

import string
from functools import cache

import numpy as np

from earshot.encoders.clock import BORDER
from earshot.encoders.towers import phone_ids, run_text
from earshot.encoders.word import WordEncoder
from earshot.encoders.wordpiece import WITHIN, WordPiece
from earshot.features import Floats
from earshot.pronounce import pronounce_word

SOUND_SCALE = 4.0
"""How much longer the part of a row that tells sound is than the one that tells meaning: what was said comes first."""
SHARPNESS = 40.0
"""Of cosines between what was heard and words, to begin with: where words of Mini LibriSpeech are known best."""
AT_ONCE = 512
LETTERS = frozenset(string.ascii_lowercase)


def sound_and_meaning(pieces: WordPiece, embeddings: Floats, encoder: WordEncoder, dim: int) -> Floats:
    """Rows (pieces, dim): each piece's embedding by the word encoder's text tower, from its usual pronunciation, and
    what of its word embedding (pieces, d) the first principal components hold. Ours.

    Pieces that are no English letters have no sound: those rows are zero there.
    """
    spoken = [k for k, piece in enumerate(pieces.pieces) if LETTERS.issuperset(piece.removeprefix(WITHIN))]
    rows = np.zeros((len(pieces.pieces), dim), np.float32)
    for some in (spoken[k : k + AT_ONCE] for k in range(0, len(spoken), AT_ONCE)):
        rows[some, : encoder.dim] = run_text(encoder.text, [_phones(pieces.pieces[k]) for k in some])
    rows[spoken, : encoder.dim] -= rows[spoken, : encoder.dim].mean(axis=0)
    centred = embeddings - embeddings.mean(axis=0)
    _, _, axes = np.linalg.svd(centred[:: max(1, len(centred) // 8000)], full_matrices=False)
    meaning = centred @ axes[: dim - encoder.dim].T
    rows[:, encoder.dim :] = meaning / np.linalg.norm(meaning, axis=1).mean()
    rows[:, : encoder.dim] *= SOUND_SCALE
    return rows


def sound_of_frames(encoder: WordEncoder, stacked: int) -> Floats:
    """(encoder.dim, stacked * frame_dim): what adds up to the embedding of a run of frames, `stacked` in a row."""
    return np.tile(encoder.projection, (1, stacked))


def sound_of_tokens(encoder: WordEncoder, dim: int) -> Floats:
    """(dim, encoder.dim): takes an embedding to where rows of `sound_and_meaning` give SHARPNESS times its cosine."""
    out = np.zeros((dim, encoder.dim), np.float32)
    out[: encoder.dim] = np.eye(encoder.dim) * (SHARPNESS / SOUND_SCALE)
    return out


@cache
def _phones(piece: str) -> list[int]:
    """Phones of a piece, with a BORDER where a word begins or may end."""
    ids = phone_ids(pronounce_word(piece.removeprefix(WITHIN))[0])
    return [*ids, BORDER] if piece.startswith(WITHIN) else [BORDER, *ids, BORDER]
