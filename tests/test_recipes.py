"""The recipes' own programs: which commands they issue, without running any."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

pytest.importorskip("torch")

FOLDER = Path(__file__).parent.parent / "recipes" / "jmcl-librispeech"
SYSTEMS = """cae-rnn siamese-rnn contrastive-rnn a2e-dwd multiview-rnn clap clap-dwd clap-dwd-1-0_1 clap-dwd-1-0_5
clap-dwd-1-1 clap-dwd-0_5-0_1 clap-dwd-scaled words-dwd-scaled words-dwd-distilled clap-dwd-log-mel""".split()


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """run.py where there is no GPU."""
    spec = importlib.util.spec_from_file_location("jmcl_run", FOLDER / "run.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    return module


@pytest.fixture
def issued(module: ModuleType, monkeypatch: pytest.MonkeyPatch) -> list[tuple[list[str], str | None]]:
    """The commands that are issued, and their GPUs; of what they would make only folders and cards are made."""
    issued: list[tuple[list[str], str | None]] = []

    def run(*command: object, log: Any = None, gpu: str | None = None) -> None:
        words = list(map(str, command))
        issued.append((words, gpu))
        if "earshot.train.corpus" in words:
            Path(words[4]).mkdir(parents=True, exist_ok=True)
        if "earshot.train.export" in words:
            Path(words[-1]).mkdir(parents=True)
            (Path(words[-1]) / "word.toml").touch()

    monkeypatch.setattr(module, "run", run)
    return issued


def start(module: ModuleType, monkeypatch: pytest.MonkeyPatch, folder: Path, *more: str) -> None:
    recipe = str(FOLDER / "paper.toml")
    monkeypatch.setattr(sys, "argv", ["run.py", f"{folder}/LibriSpeech", f"{folder}/work", "--recipe", recipe, *more])
    module.main()


def test_paper_a_is_prepared_trained_and_scored_in_order(
    module: ModuleType, issued: list[Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    grids, work = f"{tmp_path}/grids", f"{tmp_path}/work"
    start(module, monkeypatch, tmp_path, "--alignments", grids, "--jobs", "1")
    corpora = ["train-clean-100", "dev-clean", "test-clean", "test-other"]
    expected = [
        ["earshot.train.corpus", f"{tmp_path}/LibriSpeech/{name}", f"{work}/corpora/{name}", "--alignments", grids]
        for name in corpora
    ]
    for name in SYSTEMS:
        chosen = ["--system", name, "--seed", "1", "--corpora", f"{work}/corpora", "--out", f"{work}/runs/{name}@1"]
        expected += [["earshot.train.word", f"{FOLDER}/paper.toml", *chosen]]
        files = ["--card", f"{FOLDER}/card.toml", "--out", f"{work}/weights/{name}@1"]
        expected += [["earshot.train.export", f"{work}/runs/{name}@1/last.pt", *files]]
    encoders = [f"--encoder={name}@1={work}/weights/{name}@1" for name in SYSTEMS]
    for test in ("dev-clean:dev", "test-clean:test", "test-other:test"):
        asked = ["--corpora", f"{work}/corpora", "--recipe", f"{FOLDER}/paper.toml", "--test", test]
        expected += [["benchmarks.protocol", *asked, "--results", f"{work}/results", *encoders, "--encoder=word"]]
    expected += [["benchmarks.score", "--results", f"{work}/results"]]
    assert all(words[:2] == [sys.executable, "-m"] and gpu is None for words, gpu in issued)
    assert [words[2:] for words, _ in issued] == expected

    issued.clear()
    start(module, monkeypatch, tmp_path, "--jobs", "1")
    made = ["earshot.train.corpus"] * 4  # brought up to date: word times may have been corrected
    assert [words[2] for words, _ in issued] == [*made, *["benchmarks.protocol"] * 3, "benchmarks.score"]
    other = FOLDER / "laptop.toml"
    monkeypatch.setattr(sys, "argv", ["run.py", f"{tmp_path}/LibriSpeech", work, "--recipe", str(other)])
    with pytest.raises(SystemExit, match=r"cae-rnn@1 is of another recipe than .*laptop\.toml is now; take it"):
        module.main()


@pytest.mark.parametrize(("visible", "names"), [(None, {"0", "1"}), ("3,5", {"3", "5"})])
def test_each_training_has_a_gpu_of_its_own(
    module: ModuleType,
    issued: list[Any],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    visible: str | None,
    names: set[str],
) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    if visible:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    start(module, monkeypatch, tmp_path)
    assert {gpu for words, gpu in issued if "earshot.train.word" in words} == names


def test_a_launcher_has_all_gpus_for_one_training_at_a_time(
    module: ModuleType, issued: list[Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: 4)
    start(module, monkeypatch, tmp_path, "--launch", "torchrun --standalone --nproc-per-node 4")
    trained = [words for words, _ in issued if "earshot.train.word" in words]
    assert [words[words.index("--system") + 1] for words in trained] == SYSTEMS
    assert all(words[:5] == ["torchrun", "--standalone", "--nproc-per-node", "4", "-m"] for words in trained)
    assert {gpu for _, gpu in issued} == {None}


def test_a_command_that_fails_is_named_with_its_log(module: ModuleType, tmp_path: Path) -> None:
    log = tmp_path / "log"
    code = "import os; print('GPU', os.environ['CUDA_VISIBLE_DEVICES']); raise SystemExit(3)"
    with pytest.raises(SystemExit, match=rf"^failed: .*SystemExit.*; see {log}$"):
        module.run(sys.executable, "-c", code, log=log, gpu="1")
    assert log.read_text() == "GPU 1\n"


def test_a_recipe_that_is_not_there_is_one_line(
    module: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(sys, "argv", ["run.py", str(tmp_path), str(tmp_path), "--recipe", f"{tmp_path}/no.toml"])
    with pytest.raises(SystemExit, match=r"^run: .*no\.toml: no readable recipe"):
        module.main()
    (tmp_path / "no.toml").write_text("[corpora]\nnoise = 1.0\n")
    with pytest.raises(SystemExit, match=r"^run: .*no\.toml says no systems and no tests; the recipes beside"):
        module.main()
