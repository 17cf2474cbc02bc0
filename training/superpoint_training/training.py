"""The training loop that both networks share.

A stage brings samples and a loss (`Task`); the loop brings precision, schedule, progress,
validation, checkpoints, the budget, and stopping: on a signal, on divergence, at the end.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader, Dataset

from superpoint_ros.network.superpoint import SuperPoint
from superpoint_training.config import Optimisation, RunConfig
from superpoint_training.losses import Share
from superpoint_training.processes import Processes
from superpoint_training.progress import Progress
from superpoint_training.samples import Batch, StepIndices
from superpoint_training.state import STATE_FILE, load_state, save_state
from superpoint_training.stopping import check_loss, stop_signals

Forward = Callable[[Tensor], tuple[Tensor, Tensor | None]]
"""Images to cell logits and dense descriptors, as `SuperPoint.forward`."""


@dataclass(frozen=True)
class Task:
    """What is trained.

    name      for progress and files
    model     the network, on the CPU
    samples   index -> sample
    loss      (forward, batch on the device) -> named shares of the loss with their weights;
              forward is the network's
    validate  network in eval mode -> figures; on the leading process only
    pictures  network in eval mode -> name -> (H, W, 3) uint8 RGB for TensorBoard
    unit      what a batch holds: images or pairs
    """

    name: str
    model: SuperPoint
    samples: Dataset[Batch]
    loss: Callable[[Forward, Batch], dict[str, tuple[float, Share]]]
    validate: Callable[[SuperPoint], dict[str, float]]
    pictures: Callable[[SuperPoint], Mapping[str, object]]
    unit: str = "images"


@dataclass(frozen=True)
class Outcome:
    """How a run ended.

    model    what is exported: the averaged weights where there is an average; eval mode, on the CPU
    seconds  of training, those before it was resumed included
    figures  of the last validation
    why      "finished", "budget" or "signal"
    """

    model: SuperPoint
    step: int
    seconds: float
    figures: dict[str, float]
    why: str


def train(
    task: Task,
    settings: Optimisation,
    run: RunConfig,
    folder: Path,
    here: Processes,
    budget_minutes: float | None = None,
    resume: bool = False,
) -> Outcome:
    """Train until the last step, the end of the budget, or SIGINT/SIGTERM; files go to `folder`.

    Raises TrainingDiverged, or ValueError where there is nothing to resume or the state belongs to
    another network.
    """
    torch.manual_seed(run.seed)
    if run.threads:
        torch.set_num_threads(run.threads)
    loop = _Loop(task, settings, run, folder, here)
    if resume:
        loop.restore()
    elif here.leads and (folder / STATE_FILE).exists():
        raise ValueError(f"{folder / STATE_FILE}: a run is there already; resume it, or choose another folder")
    with stop_signals() as stopped:
        return loop.run(budget_minutes, stopped)


class _Loop:
    """One run: the network, its optimiser, and where it is."""

    def __init__(self, task: Task, settings: Optimisation, run: RunConfig, folder: Path, here: Processes) -> None:
        self.task, self.settings, self.config = task, settings, run
        self.folder, self.here = folder, here
        if settings.batch_size % here.world:
            raise ValueError(f"batch_size {settings.batch_size} is not a multiple of the {here.world} processes")
        model = to_device(task.model, here.device)
        for layer in model.modules():
            if isinstance(layer, nn.BatchNorm2d):
                layer.momentum = settings.norm_momentum
        if here.world > 1 and here.device.type == "cuda":
            model = nn.SyncBatchNorm.convert_sync_batchnorm(model)
        self.model = model
        self.average: AveragedModel | None = None
        if settings.average:
            decay = get_ema_multi_avg_fn(settings.average)
            self.average = AveragedModel(model, multi_avg_fn=decay, use_buffers=True)
        network: nn.Module = DistributedDataParallel(model) if here.world > 1 else model
        self.network = cast(nn.Module, torch.compile(network)) if run.compile else network
        self.optimiser = torch.optim.AdamW(
            model.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay
        )
        self.bf16 = run.precision == "bf16" or (run.precision == "auto" and here.device.type == "cuda")
        self.step, self.seconds, self.usual_loss = 0, 0.0, 0.0
        self.figures: dict[str, float] = {}

    def run(self, budget_minutes: float | None, stopped: Callable[[], bool]) -> Outcome:
        task, settings, here = self.task, self.settings, self.here
        budget = float("inf") if budget_minutes is None else budget_minutes * 60
        before, started = self.seconds, time.monotonic()
        to_save = _Every(self.config.checkpoint_minutes, self.seconds)
        to_validate = _Every(self.config.validate_minutes, self.seconds)
        if not self.step:
            self.save()
        batches = self.batches()  # started before the bar, so that no worker inherits it
        progress = (
            Progress(task.name, task.unit, settings.batch_size, self.step, settings.steps, self.folder)
            if here.leads
            else None
        )
        self.model.train()
        why = "finished"
        for batch in batches:
            self.seconds = before + here.told(time.monotonic() - started)
            if self.seconds >= budget or here.told(float(stopped())):
                why = "budget" if self.seconds >= budget else "signal"
                break
            scalars = self.update(batch, max(self.step / settings.steps, self.seconds / budget))
            self.step += 1
            if progress:
                progress.step(self.step, self.seconds, budget - self.seconds, scalars)
            if to_validate.passed(self.seconds):
                self.validate(progress)
            if to_save.passed(self.seconds):
                self.save()
        self.seconds = before + here.told(time.monotonic() - started)
        self.save()
        if why != "signal":
            self.validate(progress)
        if progress:
            progress.close()
        return Outcome(self.exported().cpu(), self.step, self.seconds, self.figures, why)

    def batches(self) -> Iterator[Batch]:
        settings, here = self.settings, self.here
        workers = self.config.workers
        return iter(
            DataLoader(
                self.task.samples,
                batch_sampler=StepIndices(self.step, settings.steps, settings.batch_size, here.rank, here.world),
                num_workers=workers,
                pin_memory=here.device.type == "cuda",
                prefetch_factor=4 if workers else None,
                # else starting it would draw from torch's own, once more for each resume
                generator=torch.Generator(),
            )
        )

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor | None]:
        """The network at its precision; losses stay in float32."""
        with torch.autocast(self.here.device.type, torch.bfloat16, enabled=self.bf16):
            return cast(tuple[Tensor, Tensor | None], self.network(image))

    def update(self, batch: Batch, progress: float) -> dict[str, float]:
        """One step of the optimiser; raises TrainingDiverged before weights are touched."""
        settings, here = self.settings, self.here
        rate = learning_rate(settings, self.step, progress)
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        batch = {name: tensor.to(here.device, non_blocking=True) for name, tensor in batch.items()}
        batch["image"] = as_network_input(batch["image"])
        shares = self.task.loss(self.forward, batch)
        loss, parts = combine(shares, here)
        self.optimiser.zero_grad(set_to_none=True)
        # DistributedDataParallel averages gradients, but each process has a share of the sum.
        (loss * here.world).backward()
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), settings.clip or float("inf"))
        parts["gradient_norm"] = float(norm)
        self.usual_loss = check_loss(
            parts, self.usual_loss, self.step + 1, self.config.explosion, self.task.name, self.folder
        )
        self.optimiser.step()
        if self.average is not None:
            self.average.update_parameters(self.model)
        return {**parts, "learning_rate": rate}

    def exported(self) -> SuperPoint:
        """A copy of what is exported, in eval mode."""
        source = self.model if self.average is None else self.average.module
        model = to_device(SuperPoint(self.model.architecture), self.here.device)
        model.load_state_dict(source.state_dict())
        return model.eval()

    def validate(self, progress: Progress | None) -> None:
        if progress:
            model = self.exported()
            with torch.no_grad():
                self.figures = self.task.validate(model)
                pictures = self.task.pictures(model)
            progress.validation(self.step, self.seconds, self.figures, pictures)
        self.here.wait()

    def save(self) -> None:
        if not self.here.leads:
            return
        save_state(
            self.folder / STATE_FILE,
            {
                "task": self.task.name,
                "architecture": asdict(self.model.architecture),
                "step": self.step,
                "seconds": self.seconds,
                "usual_loss": self.usual_loss,
                "model": self.model.state_dict(),
                "optimiser": self.optimiser.state_dict(),
                "average": None if self.average is None else self.average.state_dict(),
                "random": torch.get_rng_state(),
            },
        )

    def restore(self) -> None:
        path = self.folder / STATE_FILE
        state = load_state(path, self.task.name)
        try:
            self.model.load_state_dict(state["model"])
            self.optimiser.load_state_dict(state["optimiser"])
            if self.average is not None:
                self.average.load_state_dict(state["average"])
        except (RuntimeError, ValueError, AttributeError, TypeError) as error:
            reason = str(error).splitlines()[-1].strip()
            raise ValueError(f"{path}: belongs to a run with another network or settings ({reason})") from None
        torch.set_rng_state(state["random"])
        self.step, self.seconds = state["step"], state["seconds"]
        self.usual_loss = state["usual_loss"]


class _Every:
    """Says when so many minutes have passed since it last said so."""

    def __init__(self, minutes: float, now: float) -> None:
        self._interval, self._last = minutes * 60, now

    def passed(self, now: float) -> bool:
        if now - self._last < self._interval:
            return False
        self._last = now
        return True


def learning_rate(settings: Optimisation, step: int, progress: float) -> float:
    """Of a step, counted from 0; progress is from 0 to 1."""
    rate = settings.learning_rate * min(1.0, (step + 1) / max(settings.warmup, 1))
    if settings.schedule == "cosine":
        rate *= 0.5 * (1 + float(torch.cos(torch.tensor(min(progress, 1.0) * torch.pi))))
    return rate


def combine(shares: Mapping[str, tuple[float, Share]], here: Processes) -> tuple[Tensor, dict[str, float]]:
    """This process's share of everyone's loss, with gradient; the whole loss and its parts."""
    counts = here.total(torch.stack([share.count for _, share in shares.values()])).clamp_min(1)
    parts = torch.stack([share.total for _, share in shares.values()]) / counts
    weights = parts.new_tensor([weight for weight, _ in shares.values()])
    whole = here.total(parts.detach())
    figures = dict(zip(shares, whole.tolist(), strict=True))
    return (parts * weights).sum(), {"loss": float((whole * weights).sum()), **figures}


def to_device(model: SuperPoint, device: torch.device) -> SuperPoint:
    """The network on a device, channels last: on CPUs 1.4 times as fast as channels first."""
    moved = model.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return cast(SuperPoint, moved)


def as_network_input(image: Tensor) -> Tensor:
    """Views (B, V, H, W) uint8 to (V · B, 1, H, W) float32 in [0, 1], first views first."""
    views = image.transpose(0, 1).flatten(0, 1)[:, None]
    return views.float().div(255).contiguous(memory_format=torch.channels_last)
