"""How the words of English sound and how often they are said: what the encoder's lexicon is made of.

In: the pronouncing dictionary and the word frequencies of the language model that pocketsphinx brings (BSD licence).
Out: distinct pronunciations with the log probability that a spoken word is one of them. Knows nothing of encoders.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from earshot.pronounce import PHONES, dictionary_words, pronounce_word

_LOG_BASE = 1.0001  # of pocketsphinx's integer log probabilities
_IMPOSSIBLE = -100.0


def word_priors() -> tuple[list[tuple[int, ...]], NDArray[np.float32]]:
    """Pronunciations (phone ids), longest first, and their log priors; homophones are one, their chances added."""
    from pocketsphinx import Config, LogMath, NGramModel, get_model_path

    model = NGramModel(Config(), LogMath(), get_model_path("en-us/en-us.lm.bin"))
    number = {phone: k for k, phone in enumerate(PHONES)}
    chance: dict[tuple[int, ...], float] = {}
    for word in dictionary_words():
        log_prior = model.prob([word]) * math.log(_LOG_BASE)
        if log_prior > _IMPOSSIBLE:
            variants = pronounce_word(word)
            for phones in variants:
                ids = tuple(number[phone] for phone in phones)
                chance[ids] = chance.get(ids, 0.0) + math.exp(log_prior) / len(variants)
    pronunciations = sorted(chance, key=lambda ids: (-len(ids), ids))
    return pronunciations, np.log(np.array([chance[ids] for ids in pronunciations])).astype(np.float32)
