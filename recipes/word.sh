#!/bin/sh
# From raw speech to the word encoder that Earshot ships, and to its scores.
#
#     recipes/word.sh SPEECH WORK [recipes/word.toml | recipes/word-small.toml] [OUT]
#
# Run it from the root of the repository. SPEECH holds one folder a corpus (benchmarks/README.md says in which layout);
# WORK takes prepared speech, synthetic speech and checkpoints; OUT takes the weights (WORK/weights/NAME unless told;
# src/earshot/encoders/weights to ship them); PROCESSES is that of GPUs, where there are such, else 2. Every step goes on where a stopped run left off. Needs:
# pip install -e '.[train,bench]', and the Debian packages that recipes/synthesise.py names. The full recipe takes two
# processor cores about two hours (preparing the speech 25 minutes of it), the small one three quarters of an hour.
set -eu
speech=$1 work=$2 recipe=${3:-recipes/word.toml} out=${4:-$2/weights/$(basename "${3:-word}" .toml)}
name=$(basename "$recipe" .toml)
of() { python -c "from earshot.train.recipe import Path, read_recipe; recipe = read_recipe(Path('$recipe')); print($1)"; }
hours=$(of "recipe['synthetic_hours']") steps=$(of "recipe['train']['steps']") corpora=$(of "*recipe['corpora']")
export OMP_NUM_THREADS=1 OMP_WAIT_POLICY=PASSIVE

for corpus in $corpora; do
    case $corpus in
    synth)
        python recipes/synthesise.py "$work/synth" --hours "$hours"
        python -m earshot.train.corpus "$work/synth" "$work/corpora/synth" ;;
    *) python -m earshot.train.corpus "$speech/$corpus" "$work/corpora/$corpus" ;;
    esac
done
torchrun --standalone --nproc-per-node "${PROCESSES:-2}" -m earshot.train.word "$recipe" --corpora "$work/corpora" --out "$work/runs/$name"
python -m earshot.train.export "$work/runs/$name/last.pt" --card "recipes/$name-card.toml" --out "$out"
python -m earshot.train.calibrate "$recipe" --corpora "$work/corpora" --weights "$out"
python -m benchmarks.run --speech "$speech" --work "$work/benchmarks" --results "$work/results" \
    --contender "earshot=$out" --contender "word_encoder=$out" --contender downsampled_mfcc
for checkpoint in "$work/runs/$name"/step-*.pt; do # the learning curve, where the recipe keeps weights for one
    step=$(basename "$checkpoint" .pt)
    test -e "$checkpoint" && test "$step" != "step-$steps" || continue
    python -m earshot.train.export "$checkpoint" --card "recipes/$name-card.toml" --out "$work/weights/$name-$step"
    python -m benchmarks.run --speech "$speech" --work "$work/benchmarks" --results "$work/results" --task words \
        --contender "word_encoder=$work/weights/$name-$step"
done
python -m benchmarks.score --results "$work/results"
