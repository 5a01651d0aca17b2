"""Re-make the sample recordings: `texts.toml` -> synthetic voices -> compressed files and `truth.jsonl`.

In: texts.toml, and the Debian packages espeak-ng, flite, festival (with its voices) and ffmpeg. Out: the recordings
beside this file, and for each the words with their times (forced alignment by pocketsphinx, good to about 20 ms).
Does not know Earshot: it only shares the way to call the engines with recipes/synthesise.py.

    python samples/make.py
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import soxr
from numpy.typing import NDArray

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "recipes"))

from synthesise import SAMPLE_RATE, Utterance, speak_espeak, speak_festival, speak_flite  # noqa: E402

CODECS = {
    ".opus": ["-c:a", "libopus", "-b:a", "24k"],
    ".ogg": ["-c:a", "libopus", "-b:a", "24k"],
    ".mp3": ["-c:a", "libmp3lame", "-b:a", "32k"],
    ".m4a": ["-c:a", "aac", "-b:a", "32k"],
}
Samples = NDArray[np.float32]


def speak(voice: list[Any], sentence: str) -> Samples:
    """One sentence by one voice, 16 kHz, the silence of the engine cut off, at a common loudness."""
    engine, name, stretch, pitch = voice
    utterance = Utterance("sample", "", sentence, engine, name, stretch, pitch, "")
    with tempfile.TemporaryDirectory() as folder:
        wav = Path(folder) / "sentence.wav"
        if engine == "festival":
            speak_festival([(utterance, wav)])
        else:
            {"espeak": speak_espeak, "flite": speak_flite}[engine](utterance, wav)
        samples, rate = soundfile.read(wav, dtype="float32")
    samples = soxr.resample(samples, rate, SAMPLE_RATE) if rate != SAMPLE_RATE else samples
    loud = np.flatnonzero(np.abs(samples) > 0.02 * np.abs(samples).max())
    samples = samples[max(0, loud[0] - 800) : loud[-1] + 1600]
    scaled: Samples = samples * min(0.08 / np.sqrt(np.mean(samples**2)), 0.95 / np.abs(samples).max())
    return scaled


def jingle() -> Samples:
    """Three seconds of plucked chords."""
    notes = [(0.0, (262, 330, 392)), (0.5, (349, 440, 523)), (1.0, (392, 494, 587)), (1.5, (523, 659, 784))]
    samples = np.zeros(3 * SAMPLE_RATE, dtype=np.float32)
    for start, chord in notes:
        time = np.arange(len(samples) - int(start * SAMPLE_RATE)) / SAMPLE_RATE
        for hertz in chord:
            tone = sum(np.sin(2 * np.pi * hertz * k * time) / k**1.5 for k in range(1, 6)) * np.exp(-2.5 * time)
            samples[int(start * SAMPLE_RATE) :] += 0.06 * tone
    return samples


def align(samples: Samples, sentence: str) -> list[tuple[float, float, str]]:
    """Words of the sentence with start and end in seconds."""
    from pocketsphinx import Decoder

    words = re.findall(r"[a-z']+", sentence.lower())
    decoder = Decoder(lm=None, loglevel="FATAL", bestpath=False, beam=1e-120, wbeam=1e-120, pbeam=1e-120)
    for word in words:
        if decoder.lookup_word(word) is None:
            raise SystemExit(f"{word!r} is not in the dictionary of the aligner: choose another word in texts.toml")
    decoder.set_align_text(" ".join(words))
    pad = SAMPLE_RATE // 4  # the aligner wants some silence around the sentence
    padded = np.random.default_rng(0).normal(0, 5e-4, len(samples) + 2 * pad) + np.pad(samples, pad)
    pcm = np.round(np.clip(padded, -1, 1) * 32767).astype(np.int16).tobytes()
    decoder.start_utt()
    decoder.process_raw(pcm, full_utt=True)
    decoder.end_utt()
    decoder.set_alignment()
    decoder.start_utt()
    decoder.process_raw(pcm, full_utt=True)
    decoder.end_utt()
    spans = []
    for entry in decoder.get_alignment():
        if entry.name[0] not in "<[":
            start = entry.start / 100 - pad / SAMPLE_RATE
            spans.append((start, start + entry.duration / 100, re.sub(r"\(\d+\)$", "", entry.name)))
    if [span[2] for span in spans] != words:
        raise SystemExit(f"would not align: {sentence}")
    return spans


def record(turns: list[str], voices: dict[str, list[Any]]) -> tuple[Samples, list[list[Any]]]:
    """All turns joined -> samples and words [[start, end, word, voice], ...]."""
    pieces: list[Samples] = [np.zeros(SAMPLE_RATE // 2, dtype=np.float32)]
    words: list[list[Any]] = []
    for turn in turns:
        if turn == "(jingle)":
            pieces.append(jingle())
        elif turn.startswith("(silence "):
            pieces.append(np.zeros(int(float(turn[9:-1]) * SAMPLE_RATE), dtype=np.float32))
        else:
            voice, _, text = turn.partition(": ")
            for sentence in re.findall(r"[^.?!]+[.?!]", text):
                start = sum(map(len, pieces)) / SAMPLE_RATE
                pieces.append(speak(voices[voice], sentence.strip()))
                spans = align(pieces[-1], sentence)
                words += [[round(start + a, 2), round(start + b, 2), word, voice] for a, b, word in spans]
                pieces.append(np.zeros(SAMPLE_RATE * 3 // 10, dtype=np.float32))
            pieces.append(np.zeros(SAMPLE_RATE * 3 // 10, dtype=np.float32))
    samples = np.concatenate(pieces)
    hiss = np.random.default_rng(0).normal(0, 5e-4, len(samples)).astype(np.float32)
    noisy: Samples = samples + hiss
    return noisy, words


def main() -> None:
    texts = tomllib.loads((HERE / "texts.toml").read_text(encoding="utf-8"))
    truth = []
    for recording in texts["recordings"]:
        samples, words = record(recording["turns"], texts["voices"])
        target = HERE / recording["file"]
        with tempfile.NamedTemporaryFile(suffix=".wav") as wav:
            soundfile.write(wav.name, samples, SAMPLE_RATE, subtype="PCM_16")
            bitexact = ["-map_metadata", "-1", "-fflags", "+bitexact", "-flags:a", "+bitexact"]
            command = ["ffmpeg", "-y", "-loglevel", "error", "-i", wav.name, *CODECS[target.suffix], *bitexact]
            subprocess.run([*command, str(target)], check=True)
        seconds = round(len(samples) / SAMPLE_RATE, 2)
        truth.append(json.dumps({"audio": recording["file"], "seconds": seconds, "words": words}))
        print(f"{recording['file']:24} {seconds:6.1f} s {target.stat().st_size:8} bytes")
    (HERE / "truth.jsonl").write_text("\n".join(truth) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
