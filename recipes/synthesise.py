"""Text -> many synthetic voices -> a corpus of English speech to train on.

In: WordNet, fortunes, the CMU dictionary and the engines espeak-ng, flite and festival (Debian packages).
Out: a folder with `manifest.jsonl` (`id, audio, seconds, speaker, text, split`) and 16 kHz mono FLAC; lines are
appended when their audio is complete, so training can read while it grows.
Does not know word times (an aligner adds them), noise or rooms (training adds them), or any model.

    python recipes/synthesise.py data/synth --hours 10 --jobs 2

The corpus is a prefix of a plan fixed by the seed: a stopped run goes on where it was, and more hours extend it.
Debian: espeak-ng flite festival festvox-kallpc16k festvox-kdlpc16k festvox-us-slt-hts wordnet-base fortunes
"""

from __future__ import annotations

import argparse
import heapq
import itertools
import json
import math
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

Choice = TypeVar("Choice")

SAMPLE_RATE = 16_000
WORDNET = Path("/usr/share/wordnet")
FORTUNES = Path("/usr/share/games/fortunes")

ENGINES = {"flite": 0.40, "espeak": 0.35, "festival": 0.25}  # share of the utterances, close to the share of the hours
LIST_EVERY = 5  # every fifth utterance is a list of single words, the others are sentences
DEV_EVERY, DEV_UTTERANCES = 8, 150  # every eighth utterance is held out until there are 150: about 16 minutes

FLITE_VOICES = {"slt": 4, "awb": 4, "kal16": 2}
FESTIVAL_VOICES = {"cmu_us_slt_arctic_hts": 6, "kal_diphone": 4}
ESPEAK_ACCENTS = {
    "en-us": 12, "en-gb": 3, "en-us-nyc": 2, "en-gb-x-rp": 2, "en-gb-scotland": 1, "en-gb-x-gbclan": 1,
    "en-gb-x-gbcwmd": 1, "en-029": 1,
}  # fmt: skip
# espeak-ng's variants that could pass for people: no robots, whispers, croaks or demons.
ESPEAK_VARIANTS = (
    "m1 m2 m3 m4 m6 m7 m8 f1 f2 f3 f4 klatt klatt2 klatt3 klatt4 klatt5 klatt6 Alex Alicia Andy Annie Denis Diogo Gene "
    "Gene2 Henrique Hugo Jacky Lee Marco Mario Michael Mike Nguyen RicishayMax RicishayMax2 RicishayMax3 adam anika "
    "announcer antonio aunty belinda benjamin boris caleb david ed edward grandma grandpa gustave iven iven2 iven3 "
    "iven4 john kaukovalta linda marcelo max michel miguel norbert pablo paul pedro quincy rob robert sandro shelby "
    "steph steph2 steph3 travis zac"
).split()
DEV_VOICES = {
    ("flite", "rms"): 4, ("festival", "ked_diphone"): 3, ("espeak", "en-us+m5"): 1, ("espeak", "en-us+f5"): 1,
    ("espeak", "en-gb+victor"): 1, ("espeak", "en-us+Andrea"): 1,
}  # fmt: skip

# Words that the engines expand or spell although the dictionary gives them a plain pronunciation.
EXPANDED = set(
    "mr mrs ms dr st jr sr vs etc lb lbs oz ft inc ltd co corp mt rd ave blvd capt col gen sgt lt prof rev hon gov jan "
    "feb mar apr jun jul aug sept oct nov dec mon tue wed thu fri ii iii iv vi vii viii ix xi xii xiii xiv xv xvi xx "
    "ie eg al cf est esq ph am pm ad bc us eu uk un tv id ok ed vol fig pp max min ca la pa ma de il".split()
)


@dataclass(frozen=True)
class Utterance:
    """One line of the plan. `spoken` is what the engine reads, with punctuation; `text` the words alone."""

    id: str
    text: str
    spoken: str
    engine: str
    voice: str
    stretch: float  # of durations, 1.0 is the voice's own rate
    pitch: float  # factor on the voice's mean f0, where the engine has such a control
    split: str

    @property
    def speaker(self) -> str:
        return f"{self.engine}/{self.voice}"


# ---- text


def read_dictionary() -> set[str]:
    """Words of the CMU dictionary that an English reader would say as one word."""
    from pocketsphinx import get_model_path

    lines = Path(get_model_path("en-us/cmudict-en-us.dict")).read_text(encoding="utf-8").splitlines()
    words = {line.split(maxsplit=1)[0] for line in lines}
    plain = {word for word in words if re.fullmatch(r"[a-z]+('[a-z]+)?", word) and re.search("[aeiouy]", word)}
    return {word for word in plain if len(word) > 1 or word in ("a", "i")} - EXPANDED


def raw_sentences() -> Iterator[str]:
    """WordNet's definitions and examples, then the fortunes' sentences."""
    for part in ("noun", "verb", "adj", "adv"):
        for line in (WORDNET / f"data.{part}").read_text(encoding="utf-8", errors="replace").splitlines():
            gloss = re.sub(r"\([^)]*\)", " ", line.partition(" | ")[2])
            yield from gloss.split(";")
    for path in sorted(FORTUNES.glob("*.dat")):
        for fortune in re.split(r"^%$", path.with_suffix("").read_text("utf-8", errors="replace"), flags=re.M):
            body = re.split(r"^\s*--", fortune, maxsplit=1, flags=re.M)[0]
            yield from re.findall(r"[^.?!]+[.?!]?", " ".join(body.split()))


def parse_sentence(raw: str, dictionary: set[str]) -> tuple[tuple[str, ...], str] | None:
    """-> (words, what to read), or None where a word is unknown, the length is wrong or a sign would be read aloud."""
    raw = raw.strip().replace('"', " ").lower()
    if re.search(r"[^a-z' ,.:?!-]|--|\.\w", raw):
        return None
    end = "?" if raw.endswith("?") else "."
    spoken, words = [], []
    for token in raw.replace("-", " ").replace(":", ",").split():
        word = token.strip(",.?!'")
        if not word:
            continue
        if word not in dictionary:
            return None
        words.append(word)
        spoken.append(word + ("," if token.endswith(",") else ""))
    if not 5 <= len(words) <= 25:
        return None
    return tuple(words), " ".join(spoken).rstrip(",") + ("" if words[-1] == "no" else end)


def balanced(sentences: dict[tuple[str, ...], str], rng: random.Random) -> Iterator[tuple[tuple[str, ...], str]]:
    """All sentences, each time the one that adds most to the coverage of words that are still rare in what was taken.

    A word is wanted 5 to 40 times, the more often the commoner it is in the pool; the gain shrinks as sentences are
    taken, so a stale heap entry is only ever too high, and re-evaluating the top of the heap gives the greedy order
    (to within 5 %, which saves most of the work).
    """
    frequency = Counter(word for words in sentences for word in set(words))
    wanted = {word: min(40.0, max(5.0, 2 * math.sqrt(count))) for word, count in frequency.items()}
    taken: Counter[str] = Counter()

    def gain(words: tuple[str, ...]) -> float:
        # A word that occurs once in the pool cannot be heard from two speakers: it counts for little.
        rare = ((1 - taken[w] / wanted[w]) * min(frequency[w], 5) for w in set(words) if taken[w] < wanted[w])
        return sum(rare) / (len(words) + 3)

    heap = [(-gain(words), rng.random(), words) for words in sentences]
    heapq.heapify(heap)
    while heap:
        _, tie, words = heapq.heappop(heap)
        now = gain(words)
        if heap and now < -0.95 * heap[0][0]:
            heapq.heappush(heap, (-now, tie, words))
            continue
        taken.update(words)
        yield words, sentences[words]


def word_lists(words: list[str], rng: random.Random) -> Iterator[tuple[tuple[str, ...], str]]:
    """Lists of six to eight words, every word as often as any other; half are read with a pause after each word."""
    endless = itertools.chain.from_iterable(rng.sample(words, len(words)) for _ in itertools.count())
    while True:
        chosen = tuple(itertools.islice(endless, rng.randint(6, 8)))
        yield chosen, rng.choice((", ", " ")).join(chosen) + ("" if chosen[-1] == "no" else ".")


def plan(seed: int) -> Iterator[Utterance]:
    """The corpus as an endless list that depends on the seed alone (it ends when the sentences are used up)."""
    dictionary = read_dictionary()
    parsed = (parse_sentence(raw, dictionary) for raw in raw_sentences())
    sentences = dict(pair for pair in parsed if pair is not None)
    frequency = Counter(word for words in sentences for word in words)
    lemmas = {
        line.split(maxsplit=1)[0]
        for part in ("noun", "verb", "adj", "adv")
        for line in (WORDNET / f"index.{part}").read_text(encoding="utf-8").splitlines()
    }
    common = sorted(w for w in lemmas & dictionary if frequency[w] >= 5 and len(w) >= 3)
    print(f"{len(sentences)} sentences, {len(frequency)} words, {len(common)} of them for lists", file=sys.stderr)
    sources = (balanced(sentences, random.Random(seed)), word_lists(common, random.Random(seed + 1)))
    for number in itertools.count():
        try:
            words, spoken = next(sources[number % LIST_EVERY == LIST_EVERY - 1])
        except StopIteration:
            return
        yield cast(f"synth{seed}-{number:06d}", number, words, spoken, random.Random(f"{seed}/{number}"))


def cast(identity: str, number: int, words: tuple[str, ...], spoken: str, rng: random.Random) -> Utterance:
    """Choose who reads it and how."""
    held_out = number % DEV_EVERY == DEV_EVERY - 1 and number < DEV_EVERY * DEV_UTTERANCES
    if held_out:
        (engine, voice) = pick(DEV_VOICES, rng)
    else:
        engine = pick(ENGINES, rng)
        if engine == "espeak":
            voice = f"{pick(ESPEAK_ACCENTS, rng)}+{rng.choice(ESPEAK_VARIANTS)}"
        else:
            voice = pick(FLITE_VOICES if engine == "flite" else FESTIVAL_VOICES, rng)
    stretch = 165 / rng.uniform(130, 210) if engine == "espeak" else rng.uniform(0.85, 1.2)
    return Utterance(
        id=identity,
        text=" ".join(words),
        spoken=spoken,
        engine=engine,
        voice=voice,
        stretch=stretch,
        pitch=math.exp(rng.uniform(-0.25, 0.25)),
        split="dev" if held_out else "train",
    )


def pick(weights: Mapping[Choice, float], rng: random.Random) -> Choice:
    return rng.choices(list(weights), list(weights.values()))[0]


# ---- voices


def speak_espeak(utterance: Utterance, wav: Path) -> None:
    words_per_minute = round(165 / utterance.stretch)
    pitch = round(50 + 120 * math.log(utterance.pitch))  # 20-80 on espeak's own scale of 0-99
    # Amplitude 40 keeps the loudest variants from clipping.
    options = ["-v", utterance.voice, "-s", str(words_per_minute), "-p", str(pitch), "-a", "40", "-w", str(wav)]
    subprocess.run(["espeak-ng", *options], input=utterance.spoken.encode(), check=True, capture_output=True)


def speak_flite(utterance: Utterance, wav: Path) -> None:
    settings = [f"duration_stretch={utterance.stretch:.3f}", f"f0_shift={utterance.pitch:.3f}"]  # awb ignores f0_shift
    options = [part for setting in settings for part in ("--setf", setting)]
    command = ["flite", "-voice", utterance.voice, *options, "-t", utterance.spoken, "-o", str(wav)]
    subprocess.run(command, check=True, capture_output=True)


def speak_festival(batch: list[tuple[Utterance, Path]]) -> None:
    """One process for the whole batch: festival takes a second to start."""
    script = []
    for utterance, wav in batch:
        script.append(f"(voice_{utterance.voice})")
        if utterance.voice.endswith("_hts"):  # has its own rate, and no pitch control
            rate = f'\'(("-r" {1 / utterance.stretch:.3f}))'
            script.append(f"(set! hts_engine_params (append {utterance.voice}::hts_engine_params {rate}))")
        else:
            mean, deviation = (f"{hertz * utterance.pitch:.0f}" for hertz in (105, 14))
            script.append(f"(Parameter.set 'Duration_Stretch {utterance.stretch:.3f})")
            script.append(
                f"(set! int_lr_params '((target_f0_mean {mean}) (target_f0_std {deviation})"
                " (model_f0_mean 170) (model_f0_std 34)))"
            )
        save = f'(utt.save.wave (utt.synth (Utterance Text "{utterance.spoken}")) "{wav}" (quote riff))'
        script.append(f"(unwind-protect {save} nil)")  # an utterance that fails must not stop those after it
    with tempfile.NamedTemporaryFile("w", suffix=".scm") as file:
        file.write("\n".join(script))
        file.flush()
        subprocess.run(["festival", "--batch", file.name], check=True, capture_output=True)


def store(wav: Path, flac: Path, n_words: int) -> float | None:
    """Resample to 16 kHz and keep as FLAC -> seconds; None where the engine said nothing or far too much."""
    import numpy as np
    import soundfile
    import soxr

    samples, rate = soundfile.read(wav, dtype="float32")
    samples = soxr.resample(samples, rate, SAMPLE_RATE) if rate != SAMPLE_RATE else samples
    seconds = len(samples) / SAMPLE_RATE
    if not 0.12 * n_words < seconds < 1.3 * n_words + 2 or np.sqrt(np.mean(samples**2)) < 1e-3:
        return None
    flac.parent.mkdir(parents=True, exist_ok=True)
    part = flac.with_suffix(".part")
    soundfile.write(part, samples, SAMPLE_RATE, format="FLAC", subtype="PCM_16")
    os.replace(part, flac)
    return seconds


def synthesise(batch: list[Utterance], out: Path) -> list[str]:
    """Speak and store a batch -> its manifest lines, without the utterances that failed (named on stderr)."""
    lines = []
    with tempfile.TemporaryDirectory(prefix="synthesise-") as folder:
        wavs = {utterance.id: Path(folder) / f"{utterance.id}.wav" for utterance in batch}
        festival = [(utterance, wavs[utterance.id]) for utterance in batch if utterance.engine == "festival"]
        if festival:
            speak_festival(festival)
        for utterance in batch:
            wav = wavs[utterance.id]
            if utterance.engine == "espeak":
                speak_espeak(utterance, wav)
            elif utterance.engine == "flite":
                speak_flite(utterance, wav)
            audio = f"audio/{utterance.id[-6:-3]}/{utterance.id}.flac"
            seconds = store(wav, out / audio, len(utterance.text.split())) if wav.exists() else None
            if seconds is None:
                print(f"skipped {utterance.id} {utterance.speaker}: {utterance.spoken}", file=sys.stderr)
                continue
            line = {"id": utterance.id, "audio": audio, "seconds": round(seconds, 3), "speaker": utterance.speaker}
            lines.append(json.dumps(line | {"text": utterance.text, "split": utterance.split}))
    return lines


# ---- the corpus


def resume(manifest: Path) -> tuple[float, str]:
    """Seconds already there and the id of the last utterance; a line cut short by a kill is removed."""
    if not manifest.exists():
        return 0.0, ""
    text = manifest.read_text(encoding="utf-8")
    whole = text[: text.rfind("\n") + 1]
    if whole != text:
        manifest.write_text(whole, encoding="utf-8")
    lines = [json.loads(line) for line in whole.splitlines()]
    return sum(line["seconds"] for line in lines), lines[-1]["id"] if lines else ""


def main() -> None:
    parser = argparse.ArgumentParser(description="Synthesise a corpus of English speech in many voices.")
    parser.add_argument("out", type=Path, help="folder of the corpus; an existing one is extended")
    parser.add_argument("--hours", type=float, default=2.0, help="stop when the corpus is this long (default 2)")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    missing = [program for program in ("espeak-ng", "flite", "festival") if shutil.which(program) is None]
    missing += [str(path) for path in (WORDNET, FORTUNES) if not path.exists()]
    if missing:
        parser.error(f"not installed: {', '.join(missing)} (Debian packages: see the top of this file)")

    options.out.mkdir(parents=True, exist_ok=True)
    manifest = options.out / "manifest.jsonl"
    seconds, last = resume(manifest)
    utterances = (utterance for utterance in plan(options.seed) if utterance.id > last)
    batches = iter(lambda: list(itertools.islice(utterances, 48)), [])
    with ProcessPoolExecutor(options.jobs) as pool, manifest.open("a", encoding="utf-8") as file:
        running: list[Future[list[str]]] = []
        while seconds < options.hours * 3600:
            for batch in itertools.islice(batches, options.jobs + 1 - len(running)):
                running.append(pool.submit(synthesise, batch, options.out))
            if not running:
                break
            for line in running.pop(0).result():  # in the plan's order, so that what is there is always a prefix
                file.write(line + "\n")
                seconds += json.loads(line)["seconds"]
            file.flush()
            print(f"{seconds / 3600:.2f} h", file=sys.stderr)


if __name__ == "__main__":
    main()
