"""The second half of the write path: stored frames, and transcripts that people have -> passages that can be asked.

In: an open store, the passage encoder, a folder of transcripts. Out: passages in the store. Recordings are not decoded
again: all it takes is the word encoder's frames. Knows nothing of questions.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path

from earshot import blas, captions
from earshot.captions import Caption
from earshot.encoders.passage import PassageEncoder
from earshot.frames import Stretch
from earshot.ingest import Progress, Transcripts
from earshot.library import EncoderIdentity, Failure, Source, Store
from earshot.passages import listen, read
from earshot.types import EarshotError, Recording, Seconds

AT_ONCE: Seconds = 600.0
"""Speech whose frames are read together."""


def hear(
    store: Store, encoder: PassageEncoder, workers: int, *, progress: Callable[[Progress], None] | None = None
) -> int:
    """Make the passages that are yet to be made, by that many threads; how many recordings had none.

    Each recording is stored when it is done, so the next run goes on where this one stopped. Raises LibraryError and
    EncoderError.
    """
    store.use_passage_encoder(EncoderIdentity(encoder.name, encoder.digest, encoder.dim))
    left: dict[Source, list[Recording]] = {
        "heard": store.recordings(store.without_passages()),
        "transcript": store.recordings(store.without_passages("transcript")),
    }
    n_files, total = sum(map(len, left.values())), sum(r.speech_seconds for of in left.values() for r in of)
    files, done = 0, 0.0
    with blas.one_thread(), ThreadPoolExecutor(workers) as pool:
        for source, recordings in left.items():
            for some in _batches(recordings):
                stretches = _stretches(store, some)
                if source == "heard":
                    made = listen(list(stretches.values()), encoder, pool.map)
                else:
                    told: dict[int, list[Caption]] = store.transcripts(stretches)
                    made = read([(told[id], of) for id, of in stretches.items()], encoder, pool.map)
                for id, heard in zip(stretches, made, strict=True):
                    store.add_passages(id, heard, source)
                files, done = files + len(some), done + sum(recording.speech_seconds for recording in some)
                if progress:
                    progress(Progress(done, total, files, n_files, hearing=True))
    return len(left["heard"])


def _stretches(store: Store, recordings: Sequence[Recording]) -> dict[int, list[Stretch]]:
    """The stretches of speech of each recording, by its id."""
    stretches: dict[int, list[Stretch]] = {recording.id: [] for recording in recordings}
    table = store.frames(stretches)
    for k, (first, last) in enumerate(pairwise(table.stretch_offsets)):
        of = stretches[int(table.stretch_recording[k])]
        of.append(Stretch(float(table.stretch_start[k]), table.vectors[first:last]))
    return stretches


def _batches(recordings: Sequence[Recording]) -> Iterator[list[Recording]]:
    """Recordings with AT_ONCE seconds of speech together, or one that has more."""
    batch: list[Recording] = []
    for recording in recordings:
        batch.append(recording)
        if sum(one.speech_seconds for one in batch) >= AT_ONCE:
            yield batch
            batch = []
    if batch:
        yield batch


def import_transcripts(store: Store, encoder: PassageEncoder, folder: Path) -> Transcripts:
    """Store the transcripts in `folder` of the recordings that the library holds.

    A transcript belongs to the recording of its name in the same folder, else to the only one of its name. EarshotError
    where there is no such folder.
    """
    store.use_passage_encoder(EncoderIdentity(encoder.name, encoder.digest, encoder.dim))
    named: dict[str, list[Recording]] = {}
    for recording in store.recordings():
        named.setdefault(os.path.splitext(os.path.basename(recording.path))[0], []).append(recording)
    found, others = captions.by_name(folder, named)
    used, failures = 0, list[Failure]()
    for name, paths in found.items():
        failed = []
        for path in paths:
            try:
                recording = _whose(path, named[name])
                store.add_transcript(recording.id, captions.within(captions.read(path), recording.seconds))
                used += 1
                break
            except EarshotError as error:
                failed.append(Failure(str(path), None, str(error).removeprefix(f"{path}: ")))
        else:
            failures += failed
    return Transcripts(used, tuple(failures), tuple(map(str, others)))


def _whose(path: Path, recordings: Sequence[Recording]) -> Recording:
    """The recording in the folder of its transcript, else the only one. EarshotError where there are several."""
    here = [one for one in recordings if os.path.dirname(one.path) == os.path.abspath(path.parent)] or recordings
    if len(here) > 1:
        names = " and ".join(recording.path for recording in here[:2])
        raise EarshotError(f"{path}: it may be of {names}; put it beside the one that it belongs to")
    return here[0]
