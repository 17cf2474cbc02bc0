"""The training loop that both networks share.

A stage brings samples and a loss (`Task`); the loop brings precision, schedule, progress, validation, checkpoints, the
budget, and stopping: on a signal, on divergence, at the end, and when nothing gets better.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader

from superpoint_ros.network.superpoint import SuperPoint
from superpoint_training.best import Best
from superpoint_training.config import RunConfig
from superpoint_training.losses import combine
from superpoint_training.optimisation import Optimisation, freeze, learning_rate, to_training
from superpoint_training.precision import autocast, choose_dtype, gradient_scaler
from superpoint_training.processes import Processes
from superpoint_training.progress import Progress
from superpoint_training.samples import Batch, StepIndices
from superpoint_training.state import STATE_FILE, check_recipe, load_state, save_state
from superpoint_training.stopping import check_loss, stop_signals
from superpoint_training.task import Outcome, Task, as_network_input, to_device


def train(
    task: Task,
    settings: Optimisation,
    run: RunConfig,
    folder: Path,
    here: Processes,
    budget_minutes: float | None = None,
    resume: bool = False,
    begins: Callable[[], object] = lambda: None,
) -> Outcome:
    """Train until the last step, the end of the budget, or SIGINT/SIGTERM; files go to `folder`.

    begins  called once nothing is in the way of the run any more, for files that a refused one must not touch

    Raises TrainingDiverged, or ValueError where there is nothing to resume or the state belongs to
    another network, recipe or pictures.
    """
    torch.manual_seed(run.seed)
    if run.threads:
        torch.set_num_threads(run.threads)
    loop = _Loop(task, settings, run, folder, here)
    if resume:
        loop.restore()
    elif here.leads and (folder / STATE_FILE).exists():
        raise ValueError(f"{folder / STATE_FILE}: a run is there already; resume it, or choose another folder")
    begins()
    with stop_signals() as stopped:
        return loop.run(budget_minutes, stopped)


class _Loop:
    """One run: the network, its optimiser, and where it is."""

    def __init__(self, task: Task, settings: Optimisation, run: RunConfig, folder: Path, here: Processes) -> None:
        self.task, self.settings, self.config = task, settings, run
        self.folder, self.here = folder, here
        if settings.batch_size % (here.world * settings.accumulate):
            raise ValueError(
                f"batch_size {settings.batch_size} is not a multiple of {here.world} processes "
                f"times {settings.accumulate} parts (accumulate)"
            )
        model = to_device(task.model, here.device)
        freeze(model, settings)
        if here.world > 1 and here.device.type == "cuda":
            model = nn.SyncBatchNorm.convert_sync_batchnorm(model)
        self.model = model
        self.average: AveragedModel | None = None
        if settings.average:
            decay = get_ema_multi_avg_fn(settings.average)
            self.average = AveragedModel(model, multi_avg_fn=decay, use_buffers=True)
        self.parallel = DistributedDataParallel(model) if here.world > 1 else None
        network: nn.Module = self.parallel or model
        self.network = cast(nn.Module, torch.compile(network)) if run.compile else network
        self.learning = [parameter for parameter in model.parameters() if parameter.requires_grad]
        self.optimiser = torch.optim.AdamW(
            self.learning, lr=settings.learning_rate, eps=settings.eps, weight_decay=settings.weight_decay
        )
        self.dtype = choose_dtype(run.precision, here.device)
        self.scaler = gradient_scaler(self.dtype, here.device)
        self.best = Best(settings.best) if settings.best else None
        self.step, self.seconds, self.usual_loss = 0, 0.0, 0.0
        self.figures: dict[str, float] = {}
        self.enough = False  # validations without a better one

    def run(self, budget_minutes: float | None, stopped: Callable[[], bool]) -> Outcome:
        task, settings, here = self.task, self.settings, self.here
        budget = float("inf") if budget_minutes is None else budget_minutes * 60
        before, started = self.seconds, time.monotonic()

        def clock() -> tuple[float, float]:
            return before + time.monotonic() - started, float(stopped())

        to_save = _Every(self.config.checkpoint_minutes, self.seconds)
        to_validate = _Every(self.config.validate_minutes, self.seconds)
        batches = self.batches()  # started before the bar, so that no worker inherits it
        progress = (
            Progress(task.name, task.unit, settings.batch_size, self.step, settings.steps, self.folder)
            if here.leads
            else None
        )
        if not self.step:
            if self.best:
                self.validate(progress)
            self.save()
        to_training(self.model, settings)
        why = "finished"
        asked = here.broadcast(stopped())
        for batch in batches:
            if asked or self.seconds >= budget or self.enough:
                why = "signal" if asked else "budget" if self.seconds >= budget else "patience"
                break
            scalars, (self.seconds, asked) = self.update(batch, budget, clock)
            self.step += 1
            if progress:
                progress.step(self.step, self.seconds, budget - self.seconds, scalars)
            if to_validate.passed(self.seconds):
                self.validate(progress)
            if to_save.passed(self.seconds):
                self.save()
        self.seconds = before + here.broadcast(time.monotonic() - started)
        self.save()
        if why in ("finished", "budget"):
            self.validate(progress)
            if self.best:
                self.save()
        if progress:
            progress.close()
        if self.best and self.best.model:  # which the leading process has
            model, chosen, figures = self.copied(self.best.model), self.best.step, self.best.figures
        else:
            model, chosen, figures = self.current(), self.step, self.figures
        return Outcome(model.cpu(), self.step, chosen, self.seconds, figures, why)

    def batches(self) -> Iterator[Batch]:
        settings, here = self.settings, self.here
        workers = here.share(self.config.workers)
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
        with autocast(self.dtype, self.here.device):
            return cast(tuple[Tensor, Tensor | None], self.network(image))

    def update(
        self, batch: Batch, budget: float, clock: Callable[[], tuple[float, float]]
    ) -> tuple[dict[str, float], tuple[float, bool]]:
        """One step of the optimiser; raises TrainingDiverged before weights are touched.

        clock  seconds of the run, and whether a signal asks to stop

        Returns the step's figures and the leading process's clock. All of it comes from the device in one piece, as
        each time the host waits for it the device runs dry.
        """
        settings, here = self.settings, self.here
        progress = min(1.0, max(self.step / settings.steps, self.seconds / budget))
        rate = learning_rate(settings, self.step, progress)
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        batch = {name: tensor.to(here.device, non_blocking=True) for name, tensor in batch.items()}
        self.optimiser.zero_grad(set_to_none=True)
        names, parts = self.gradient(batch, progress)
        self.scaler.unscale_(self.optimiser)
        norm = nn.utils.clip_grad_norm_(self.learning, settings.clip or float("inf"))
        own = torch.tensor(clock() if here.leads else (0.0, 0.0), dtype=torch.float64)
        everyones = here.all_reduce(torch.cat([parts.double(), own.to(here.device, non_blocking=True)]))
        *values, seconds, asked, length = torch.cat([everyones, norm.double()[None]]).tolist()
        figures = {**dict(zip(names, values, strict=True)), "gradient_norm": length}
        overflown = self.scaler.is_enabled() and not math.isfinite(length) and self.scaler.get_scale() > 1
        # The scaler leaves out a step that overflows, and takes a smaller scale for the next one.
        checked = {"loss": figures["loss"]} if overflown else figures
        self.usual_loss = check_loss(
            checked, self.usual_loss, self.step + 1, self.config.explosion, self.task.name, self.folder
        )
        self.scaler.step(self.optimiser)
        self.scaler.update()
        if self.average is not None:
            self.average.update_parameters(self.model)
        return {**figures, "learning_rate": rate}, (seconds, asked > 0)

    def gradient(self, batch: Batch, progress: float) -> tuple[list[str], Tensor]:
        """Add up the gradient of a batch, part after part; returns names and this process's shares of the figures."""
        here, count = self.here, self.settings.accumulate
        chunks = zip(*(tensor.chunk(count) for tensor in batch.values()), strict=True)
        pieces = [dict(zip(batch, tensors, strict=True)) for tensors in chunks]
        found = []
        for number, piece in enumerate(pieces, start=1):
            piece["image"] = as_network_input(piece["image"])
            # Processes add up what they have with the last part.
            with self.parallel.no_sync() if self.parallel and number < count else nullcontext():
                shares = self.task.loss(self.forward, piece, progress)
                loss, parts = combine(shares, here)
                # DistributedDataParallel averages gradients, but each process has a share of the sum.
                self.scaler.scale(loss * (here.world / count)).backward()
            found.append(torch.cat([loss.detach()[None], parts]))
        return ["loss", *shares], torch.stack(found).mean(dim=0)

    def current(self) -> SuperPoint:
        """A copy of the network as it is now, averaged where it is, in eval mode."""
        source = self.model if self.average is None else self.average.module
        return self.copied(source.state_dict())

    def copied(self, state: Mapping[str, Tensor]) -> SuperPoint:
        """A network with these weights, in eval mode."""
        model = to_device(SuperPoint(self.model.architecture), self.here.device)
        model.load_state_dict(state)
        return model.eval()

    def validate(self, progress: Progress | None) -> None:
        if progress:
            model = self.current()
            with torch.no_grad():
                self.figures = self.task.validate(model)
                pictures = self.task.pictures(model)
            progress.validation(self.step, self.seconds, self.figures, pictures)
            if self.best:
                self.best.offer(self.step, self.figures, model.state_dict())
        # What the leading process knows; the others wait here until it has validated.
        self.enough = self.here.broadcast(self.exhausted)

    @property
    def exhausted(self) -> bool:
        """Whether `patience` validations in a row were no better."""
        patience = self.settings.patience
        return bool(self.best and patience and self.best.waited >= patience)

    def save(self) -> None:
        if not self.here.leads:
            return
        save_state(
            self.folder / STATE_FILE,
            {
                "task": self.task.name,
                "architecture": asdict(self.model.architecture),
                "recipe": json.dumps(self.task.recipe),
                "step": self.step,
                "seconds": self.seconds,
                "usual_loss": self.usual_loss,
                "model": self.model.state_dict(),
                "optimiser": self.optimiser.state_dict(),
                "scaler": self.scaler.state_dict(),
                "best": None if self.best is None else self.best.state_dict(),
                "average": None if self.average is None else self.average.state_dict(),
                "random": torch.get_rng_state(),
            },
        )

    def restore(self) -> None:
        path = self.folder / STATE_FILE
        state = load_state(path, self.task.name)
        check_recipe(path, state, self.task.recipe)
        try:
            self.model.load_state_dict(state["model"])
            self.optimiser.load_state_dict(state["optimiser"])
            if self.average is not None:
                self.average.load_state_dict(state["average"])
        except (RuntimeError, ValueError, AttributeError, TypeError) as error:
            reason = str(error).splitlines()[-1].strip()
            raise ValueError(f"{path}: belongs to a run with another network or settings ({reason})") from None
        if scaler := state.get("scaler"):
            self.scaler.load_state_dict(scaler)
        if self.best and (best := state.get("best")):
            self.best.load_state_dict(best)
            self.enough = self.exhausted
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
