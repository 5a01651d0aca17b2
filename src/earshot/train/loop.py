"""The training loop: batches -> losses -> weights, on CPU, one GPU or several processes (torchrun).

In: a `Batcher` and options. Out: checkpoints that resume exactly, and a log of losses as JSON lines.
Knows nothing of how batches are made or what the figures on real searches are.
"""

from __future__ import annotations

import json
import math
import os
import pickle
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from earshot.train.alignments import complete_bytes
from earshot.train.batches import Batch
from earshot.train.clsr.batches import PassageBatch
from earshot.train.clsr.model import PassageConfig, PassageModel
from earshot.train.isolated import IsolatedConfig, IsolatedModel
from earshot.train.losses import UnknownLoss
from earshot.train.model import WordConfig, WordModel
from earshot.train.priors import Priors
from earshot.train.recipe import TrainingError

MODELS = {
    "spans": (WordConfig, WordModel),
    "isolated": (IsolatedConfig, IsolatedModel),
    "passages": (PassageConfig, PassageModel),
}
"""Kinds of model: of words, ours, which pools spans from running speech, and paper A's, which is given isolated ones;
and paper B's, of passages."""
LAST, LOG = "last.pt", "log.jsonl"
"""In a run's folder: its state, and one line of JSON for every 20 steps."""
PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16}
Run = dict[str, Any]
"""What has to stay as it is where a run goes on: seed, number of processes, losses."""
Model = WordModel | IsolatedModel | PassageModel
Config = WordConfig | IsolatedConfig | PassageConfig


class Batches(Protocol):
    """What training needs of a batcher."""

    seed: int

    @property
    def priors(self) -> Priors | None:
        """Of what it makes features with; they are kept with the weights."""
        ...

    def batch(self, step: int, rank: int = 0) -> Batch | PassageBatch:
        """The batch of this step; the same for the same seed, step and rank."""
        ...


@dataclass(frozen=True, slots=True)
class TrainOptions:
    """How long and how hard to train; `losses` gives the weight of each of the model's losses."""

    steps: int = 4000
    learning_rate: float = 2e-3
    warm_up: float = 0.1
    weight_decay: float = 1e-4
    clip: float = 1.0
    losses: dict[str, float] = field(
        default_factory=lambda: dict(clap=1.0, detection=1.0, example=0.5, dwd=0.5, phone=1.0, border=0.5)
    )
    save_every: int = 100
    keep_every: int | None = None
    """Keep the weights of every such step, for a learning curve."""
    precision: str = "float32"
    """Or "bfloat16", which halves the time where the processor has it."""
    workers: int = 1
    stop_after: int | None = None
    """End this run at this step; the schedule still runs to `steps`."""
    pretrain_steps: int = 0
    pretrain_losses: dict[str, float] = field(default_factory=dict)
    """The losses of the first `pretrain_steps`, in place of `losses`."""

    def weights(self, step: int) -> dict[str, float]:
        """The losses of a step, counted from 1, and their weights."""
        return self.pretrain_losses if step <= self.pretrain_steps else self.losses


def train(batcher: Batches, config: Config, options: TrainOptions, folder: Path, start: Path | None = None) -> Model:
    """Train until `options.steps`, going on from `folder/last.pt` where there is one, else from the weights of the
    checkpoint `start`, else anew. TrainingError where that cannot be, or a loss is no longer a number."""
    if options.precision not in PRECISIONS:
        raise TrainingError(f'precision "{options.precision}" is none of: {", ".join(PRECISIONS)}')
    rank, world, device = _join()
    torch.manual_seed(batcher.seed)
    model = build(config)
    last = folder / LAST
    if start is not None and not last.exists():
        _fill(model, _of_config(start, config)["model"], start)
    model = model.to(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=options.learning_rate, weight_decay=options.weight_decay)
    run: Run = {"seed": batcher.seed, "processes": world, "losses": options.losses, "pretrain": options.pretrain_losses}
    step = _resume(last, model, optimizer, device, run)
    if world > 1:
        for parameter in model.parameters():
            dist.broadcast(parameter.data, 0)
    folder.mkdir(parents=True, exist_ok=True)
    if rank == 0:
        _shorten(folder / LOG, step)
    model.train()
    since, running = time.monotonic(), defaultdict[str, float](float)
    for batch in _loader(batcher, step, options, rank):
        step += 1
        torch.manual_seed((batcher.seed * 1_000_003 + step) * 64 + rank)
        for group in optimizer.param_groups:
            group["lr"] = options.learning_rate * one_cycle(step / options.steps, options.warm_up)
        on_device = {k: torch.as_tensor(v).to(device) for k, v in batch.items()}
        try:
            parts = _learn(model, optimizer, on_device, options.weights(step), options, world)
        except FloatingPointError as error:
            good = f"{last} is the last good state" if last.exists() else "nothing is saved"
            raise TrainingError(f"batch {step}: {error}; {good}; try a lower learning_rate") from None
        running["steps"] += 1
        running["words"] += len(batch["labels"])
        for name, value in parts.items():
            running[name] += value.item()
        ends = step in (options.steps, options.stop_after)
        if rank == 0 and (step % 20 == 0 or ends):
            _log(folder / LOG, step, running, time.monotonic() - since, world)
            since, running = time.monotonic(), defaultdict(float)
        if rank == 0 and (step % options.save_every == 0 or ends):
            save(last, model, batcher.priors, step, optimizer, run)
        if rank == 0 and options.keep_every and step % options.keep_every == 0:
            save(folder / f"step-{step}.pt", model, batcher.priors, step)
        if ends:
            break
    if world > 1:
        dist.destroy_process_group()
    return model.eval()


def _learn(
    model: Model,
    optimizer: torch.optim.Optimizer,
    batch: dict[str, Tensor],
    weights: dict[str, float],
    options: TrainOptions,
    world: int,
) -> dict[str, Tensor]:
    """One step down the gradient of the weighted losses of a batch, averaged over all processes; the losses.

    FloatingPointError, and no step, where a loss or the gradient is not a finite number.
    """
    try:
        parts = model.losses(batch, weights, PRECISIONS[options.precision])
    except UnknownLoss as error:
        raise TrainingError(f'{error} for a model of kind "{_kind(model)}" with these towers') from None
    optimizer.zero_grad(set_to_none=True)
    torch.stack([weights[name] * parts[name] for name in weights]).sum().backward()  # type: ignore[no-untyped-call]
    _average_gradients(model, world)
    if not math.isfinite(nn.utils.clip_grad_norm_(model.parameters(), options.clip).item()):
        wrong = ", ".join(name for name, part in parts.items() if not math.isfinite(part.item()))
        raise FloatingPointError(f"{wrong or 'the gradient'} is not a finite number")
    optimizer.step()
    return parts


def one_cycle(progress: float, warm_up: float) -> float:
    """Share of the peak learning rate: linear up during `warm_up`, then a cosine down to 1 %."""
    if progress < warm_up:
        return max(progress / warm_up, 0.01)
    return 0.01 + 0.99 * (1 + math.cos(math.pi * min(1.0, (progress - warm_up) / (1 - warm_up)))) / 2


def build(config: Config) -> Model:
    """A new model of the configuration's kind."""
    of: Any = next(model for kind, model in MODELS.values() if kind is type(config))
    return of(config)  # type: ignore[no-any-return]


class Checkpoint(NamedTuple):
    """A model in evaluation mode, the priors of its features where it has such, and the step that it comes from."""

    model: Model
    priors: Priors | None
    step: int


def save(
    path: Path,
    model: Model,
    priors: Priors | None,
    step: int,
    optimizer: torch.optim.Optimizer | None = None,
    run: Run | None = None,
) -> None:
    """Write a checkpoint so that a kill leaves either the old one or the new one. `run`: what goes on with it."""
    state: dict[str, Any] = {
        "kind": _kind(model),
        "config": asdict(model.config),
        "model": model.state_dict(),
        "priors": None if priors is None else [torch.as_tensor(values) for values in priors],
        "step": step,
        "run": run,
    }
    if optimizer is not None:
        state["optimizer"] = optimizer.state_dict()
    temporary = path.with_suffix(".tmp")
    torch.save(state, temporary)
    os.replace(temporary, path)


def checkpoint(path: Path) -> Checkpoint:
    """What is in a file that `save` wrote. TrainingError where that cannot be told."""
    state = _read(path, torch.device("cpu"))
    try:
        model = build(MODELS[state["kind"]][0](**state["config"]))
    except TypeError as error:
        raise TrainingError(f"{path}: made by another version of this program ({error})") from error
    _fill(model, state["model"], path)
    priors = state["priors"] and Priors(*(values.numpy() for values in state["priors"]))
    return Checkpoint(model.eval(), priors, state["step"])


def _read(path: Path, device: torch.device) -> dict[str, Any]:
    """A checkpoint of a kind there is. TrainingError where the file is none."""
    try:
        state: dict[str, Any] = torch.load(path, map_location=device, weights_only=True)
        MODELS[state["kind"]], state["priors"], state["step"]
    except (OSError, RuntimeError, KeyError, ValueError, EOFError, pickle.UnpicklingError) as error:
        what = "not a checkpoint, or cut short"
        raise TrainingError(f"{path}: {what} ({type(error).__name__}); take it away to begin anew") from error
    return state


def _of_config(path: Path, config: Config, device: torch.device | None = None) -> dict[str, Any]:
    """A checkpoint of this configuration. TrainingError where it is of another one."""
    state = _read(path, device or torch.device("cpu"))
    if MODELS[state["kind"]][0] is not type(config) or _shape(state["config"]) != _shape(asdict(config)):
        raise TrainingError(f"{path} holds another architecture ({state['config']}); train into another folder")
    return state


def _shape(config: dict[str, Any]) -> dict[str, Any]:
    """What of a configuration the weights depend on."""
    return {
        key: value
        for key, value in config.items()
        if key not in ("dropout", "margin", "temperature", "instances", "sampling")
    }


def _fill(model: Model, weights: dict[str, Any], path: Path) -> None:
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        raise TrainingError(f"{path}: made by another version of this program; train into another folder") from error


class _Batches(Dataset[dict[str, Any]]):
    def __init__(self, batcher: Batches, rank: int) -> None:
        self.batcher, self.rank = batcher, rank

    def __getitem__(self, step: int) -> dict[str, Any]:
        torch.set_num_threads(1)
        batch = self.batcher.batch(step, self.rank)
        return {each.name: getattr(batch, each.name) for each in fields(batch)}


def _loader(batcher: Batches, step: int, options: TrainOptions, rank: int) -> Iterator[dict[str, Any]]:
    steps = range(step, options.steps)
    loader: DataLoader[dict[str, Any]] = DataLoader(
        _Batches(batcher, rank), batch_size=None, sampler=steps, num_workers=options.workers
    )
    return iter(loader)


def _kind(model: Model) -> str:
    return next(kind for kind, (_, of) in MODELS.items() if isinstance(model, of))


def _resume(path: Path, model: Model, optimizer: torch.optim.Optimizer, device: torch.device, run: Run) -> int:
    """The step to go on from. TrainingError where the checkpoint is of a run that asks for something else."""
    if not path.exists():
        return 0
    state = _of_config(path, model.config, device)
    before = state.get("run") or run
    if changed := [name for name in run if before[name] != run[name]]:
        told = ", ".join(f"{name} {before[name]} and not {run[name]}" for name in changed)
        raise TrainingError(f"{path} is of a run with {told}; go on as before, or train into another folder --from it")
    _fill(model, state["model"], path)
    optimizer.load_state_dict(state["optimizer"])
    return int(state["step"])


def _join() -> tuple[int, int, torch.device]:
    """Rank, number of processes, device; torchrun sets the environment. TrainingError for more processes than GPUs."""
    gpus = torch.cuda.device_count()
    here, local = int(os.environ.get("LOCAL_RANK", 0)), int(os.environ.get("LOCAL_WORLD_SIZE", 1))
    if gpus and local > gpus:
        raise TrainingError(f"{local} processes for {gpus} GPUs of this machine; give torchrun --nproc-per-node {gpus}")
    device = torch.device("cuda", here) if gpus else torch.device("cpu")
    if gpus:
        torch.cuda.set_device(device)
    if "RANK" not in os.environ:
        return 0, 1, device
    dist.init_process_group("nccl" if gpus else "gloo")
    return dist.get_rank(), dist.get_world_size(), device


def _average_gradients(model: nn.Module, world: int) -> None:
    if world == 1:
        return
    flat = torch.cat([p.grad.flatten() if p.grad is not None else p.new_zeros(p.numel()) for p in model.parameters()])
    dist.all_reduce(flat)
    flat /= world
    offset = 0
    for p in model.parameters():
        p.grad = flat[offset : offset + p.numel()].view_as(p)
        offset += p.numel()


def _shorten(log: Path, step: int) -> None:
    """Take out what a run that was killed had logged after the step that it goes on from."""
    if log.exists():
        whole = log.read_bytes()[: complete_bytes(log)].decode().splitlines()
        log.write_text("".join(f"{line}\n" for line in whole if json.loads(line)["step"] <= step))


def _log(path: Path, step: int, running: dict[str, float], seconds: float, world: int) -> None:
    """One line about the steps since the last one: means of the losses."""
    n, words = running.pop("steps"), running.pop("words")
    line = {"step": step, "seconds": round(seconds, 1), "spans_per_second": round(words * world / seconds)}
    line |= {name: round(total / n, 4) for name, total in running.items()}
    with open(path, "a") as log:
        log.write(json.dumps(line) + "\n")
    print(json.dumps(line), flush=True)
