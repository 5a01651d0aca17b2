"""What is known of speech before a model hears any: usual log-mels, and how long phones take.

In: prepared corpora. Out: `Priors`, which travel with every checkpoint: weights are of no use with other ones. Knows
nothing of networks.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from earshot.features import Floats, log_mel
from earshot.pronounce import PHONES
from earshot.train.corpus import Corpus, Utterance
from earshot.train.transcripts import CorpusError

LISTENED = 2000
"""Utterances that log-mels are measured on."""


class Priors(NamedTuple):
    """mean and std (N_MELS,) of log-mels at -26 dB; phone_seconds (len(PHONES),): how long each phone takes."""

    mean: Floats
    std: Floats
    phone_seconds: Floats


def measured(corpora: Sequence[Corpus], folder: Path) -> Priors:
    """The priors of some speech; kept in `folder`, as measuring takes half a minute.

    CorpusError where no word is timed. The standard deviation is that around each utterance's own mean.
    """
    rows = [(corpus, u) for corpus in corpora for u in corpus.utterances if u.words]
    if not rows:
        raise CorpusError(f"{folder}: no training utterance has word times; align the corpora, or look at held_out")
    names = "\n".join(f"{u.corpus}/{u.id}" for _, u in rows)
    path = folder / f"priors-{hashlib.sha256(names.encode()).hexdigest()[:12]}.npz"
    if not path.exists():
        order = np.random.default_rng(0).permutation(len(rows))[:LISTENED]
        mels = [_level_mels(rows[int(k)][0].read(rows[int(k)][1])) for k in order]
        std = np.concatenate([mel - mel.mean(axis=0) for mel in mels]).std(axis=0)
        whole = path.with_name(f"{path.stem}-{os.getpid()}.npz")  # several processes may get here at once
        np.savez(whole, mean=np.concatenate(mels).mean(axis=0), std=std, phone_seconds=_seconds([u for _, u in rows]))
        os.replace(whole, path)
    with np.load(path) as stored:
        return Priors(*(stored[name].astype(np.float32) for name in Priors._fields))


def _seconds(utterances: Sequence[Utterance]) -> Floats:
    """Mean duration of each of PHONES; that of all for one that is never said."""
    total, count = np.zeros(len(PHONES)), np.zeros(len(PHONES))
    for phone in (p for u in utterances for p in u.phones):
        total[PHONES.index(phone.label)] += phone.end - phone.start
        count[PHONES.index(phone.label)] += 1
    usual = total.sum() / max(count.sum(), 1)
    return np.where(count > 0, total / np.maximum(count, 1), usual).astype(np.float32)


def _level_mels(samples: Floats) -> Floats:
    return log_mel(samples * np.float32(0.05 / (np.sqrt(np.mean(samples**2)) + 1e-5)))
