"""One module per contender. Each has a `build(setup) -> Contender`; `benchmarks.run` finds it by its file name."""
