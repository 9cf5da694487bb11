"""Training of one stage: from the config and the state of its folder to the last checkpoint."""

import json
from collections.abc import Callable
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
from ml_collections import ConfigDict

from eve_jax import sharding
from eve_jax.checkpoint.best import Best
from eve_jax.checkpoint.local_copies import LocalCopies, LocalSettings
from eve_jax.checkpoint.stage_folder import Checkpoints
from eve_jax.config.evaluation import smaller_is_better
from eve_jax.config.stage import Config
from eve_jax.config.stages import trained_groups
from eve_jax.data.plan.plan import planned_steps
from eve_jax.data.rows.pipeline import PLAN_FOLDER, StageData
from eve_jax.errors import Hanging
from eve_jax.model.attention import check_kernel
from eve_jax.model.eve import Params
from eve_jax.process.connect import is_leader, peers, print_once
from eve_jax.process.interrupt import Interrupted, StopRequest, asked
from eve_jax.process.lock import Lock
from eve_jax.process.paths import expand
from eve_jax.process.peers import StopAgreement
from eve_jax.process.published import own, work_folder
from eve_jax.process.watchdog import Watchdog
from eve_jax.train.average import with_average
from eve_jax.train.data_bound import DataBound
from eve_jax.train.data_thread import watched
from eve_jax.train.evaluation import EVALUATION, Evaluations, OpenTasks, Setting, describe, stopping
from eve_jax.train.goodput import Goodput
from eve_jax.train.initial_state import Start, start
from eve_jax.train.lineage import as_begun, check_identity, check_settings, identity
from eve_jax.train.masked import check_masked, say_masked
from eve_jax.train.metrics import drop_lines_after, load_metrics
from eve_jax.train.metrics_log import Meter, MetricsLog
from eve_jax.train.nonfinite import NonFinite
from eve_jax.train.optimizer import optimizer
from eve_jax.train.positions import check_positions
from eve_jax.train.profile import Profiler
from eve_jax.train.sample_weights import weighed
from eve_jax.train.schedule import schedule
from eve_jax.train.shared_data import (
    first_inputs,
    open_data_together,
    same_everywhere,
    share_folder,
    training_in_bucket,
    written_by_one_run,
)
from eve_jax.train.stage_files import write_stage_files
from eve_jax.train.step import StepFunctions, TrainState
from eve_jax.train.writers.base import RunInfo
from eve_jax.train.writers.open import open_writers, split_writers, with_trackers
from eve_jax.weights.base_config import keep_base


@dataclass
class Run:
    """What stays the same while a stage trains."""

    config: Config
    data: StageData
    meta: dict[str, Any]
    mesh: jax.sharding.Mesh
    rows: list[int]  # of a micro-batch, that this process builds
    functions: StepFunctions
    evaluations: Evaluations
    checkpoints: Checkpoints
    log: MetricsLog
    goodput: Goodput
    non_finite: NonFinite
    profiler: Profiler
    begin: Start
    lock: Lock | None  # in the process that leads

    def check(self, state: TrainState) -> None:
        """UserError when a step that was logged was not finite and the run is to stop then, a save has failed, or
        another run has taken the folder over."""
        if self.lock is not None:
            self.lock.check()
        if broken := self.log.pop_non_finite():
            self.non_finite.handle(broken, {**state.trainable, **self.begin.frozen})
        self.checkpoints.check()

    def save(self, step: int, state: TrainState) -> None:
        """Save the state after `step` steps; frozen weights that are found elsewhere are left out."""
        if step == self.begin.step:
            return
        params, meta, evaluated = self._stored(step, state)
        loss = self.log.mean_loss()
        metrics = evaluated | ({} if loss is None else {"loss": loss})
        with self.goodput.on("save"):
            self.checkpoints.save(step, params, state.optimizer, meta, metrics)
        self.goodput.write(step)

    def copy(self, step: int, state: TrainState) -> None:
        """Save the state after `step` steps on the hosts' own disks, where and when that is wanted."""
        local = self.checkpoints.local
        if local is None or not local.due(step):
            return
        params, meta, _ = self._stored(step, state)
        with self.goodput.on("save"):
            local.save(step, params, state.optimizer, meta)

    def _stored(self, step: int, state: TrainState) -> tuple[Params, dict[str, Any], dict[str, float]]:
        """What a checkpoint holds of a state that is sound: parameters, `meta`, and what was evaluated."""
        self.log.flush()
        self.check(state)
        params, more = self.begin.stored(state)
        evaluated = {k: v for k, v in self.evaluations.done.get(step, {}).items() if v is not None}
        if self.evaluations.names:
            more |= {EVALUATION: {"fingerprints": self.evaluations.fingerprints, "values": evaluated}}
        return params, self.meta | more, evaluated

    def evaluate(self, step: int, state: TrainState, stopped: Callable[[], bool]) -> bool:
        """Evaluate the model after `step` steps where that is due; False when `stopped()` in the midst of it."""
        if not self.evaluations.due(step):
            return True
        self.log.flush()
        self.check(state)
        with self.goodput.on("eval"):
            trained = with_average(state.optimizer, state.trainable) if self.config.eval.ema else state.trainable
            values = self.evaluations.measure(step, {**trained, **self.begin.frozen}, stopped)
        if values is None:
            return False
        self.log.write_evaluation(step, values)
        if self.checkpoints.best is not None:
            self.checkpoints.best.note(step, values)
        print_once(describe(self.config.name, step, values))
        return True

    def close(self) -> None:
        """Write what is pending of metrics and checkpoints, and the account of the time; waits for it."""
        try:
            self.profiler.close()
            self.log.close()
        finally:
            self.data.close()
            with self.goodput.on("save"):
                self.checkpoints.close()
            self.goodput.write(self.goodput.last_step)


def train(
    config: ConfigDict | Config, workdir: str | Path, quiet: bool = False, open_tasks: OpenTasks | None = None
) -> Path:
    """Train the stage `config` in `workdir`/`config.name`, from its last checkpoint if it has one; returns the folder.

    open_tasks: opens `config.eval.tasks` (`eve_jax.recipe.train_stage` gives it).

    Raises Interrupted after a save when asked to stop, UserError on bad input, also at the end when most samples broke.
    """
    if asked():
        raise Interrupted(f"stopped before {config.name}; rerun the command to resume")
    config = Config.of(config)
    config.check_data()
    folder = own(Path(expand(workdir, "workdir", work_folder)) / config.name)
    with training_in_bucket(folder) as lock:
        _train(as_begun(folder, config), folder, quiet, open_tasks, lock)
    return folder


def _train(config: Config, folder: Path, quiet: bool, open_tasks: OpenTasks | None, lock: Lock | None) -> None:
    """Train in `folder`, whose lock is held already or None."""
    watchdog = Watchdog(config.train.timeout, folder.parent, config.name, peers())
    with Goodput(folder) as goodput, watchdog, ExitStack() as held:
        with goodput.on("start"):
            run = _open(config, folder, goodput, held, lock, quiet, open_tasks)
        if run is not None:
            finished = False
            try:
                with StopRequest() as stop, closing(run):
                    _loop(run, stop, watchdog)
                finished = True
            finally:
                print_once(f"{config.name}: {goodput.summary()}")
                run.non_finite.close()
                if not finished:
                    say_masked(folder)
        check_masked(folder)  # its error says what `say_masked` does
        if run is not None:
            say_masked(folder)


def _open(
    config: Config,
    folder: Path,
    goodput: Goodput,
    held: ExitStack,
    lock: Lock | None,
    quiet: bool,
    open_tasks: OpenTasks | None,
) -> Run | None:
    """All that the loop needs; None when the stage is done. `held` takes the lock of the folder, unless it is held."""
    cfg, factors = config.sizes, config.factors
    metrics = load_metrics(config.train.metrics)
    writers = with_trackers(config.train.writers, config.track)
    if is_leader():
        split_writers(writers)
    same_everywhere(peers(), "settings", config.to_json())
    mesh = sharding.make_mesh(config.mesh)
    check_kernel(cfg, mesh)
    rows = sharding.local_rows(mesh, config.data.rows)
    profiler = Profiler(config.profile.steps if is_leader() else "", folder)
    rule, inputs = first_inputs(config, folder, fresh=not (folder / PLAN_FOLDER).exists())
    evaluations = Evaluations(config.eval)
    if rule and config.eval.is_set:
        evaluations = Evaluations.open(Setting(config, rule, mesh, folder), open_tasks)
    lock = lock or held.enter_context(written_by_one_run(folder, "training"))
    share_folder(folder, peers())
    with ExitStack() as failed:
        t = config.train
        best = Best(t.keep_best, t.best_by, not smaller_is_better(t.best_by)) if t.keep_best else None
        local = LocalCopies(LocalSettings(t.local_dir, t.local_every, mesh), folder, peers()) if t.local_dir else None
        checkpoints = Checkpoints(folder, t.keep, t.keep_every, best, local)
        failed.callback(checkpoints.close)
        checkpoints.set_damaged_aside(final=planned_steps(folder / PLAN_FOLDER))
        latest = checkpoints.latest
        saved = {} if latest is None else checkpoints.meta(latest)
        check_settings(folder, config)
        before = None if latest is None else saved.get("data", {})
        data = open_data_together(config, folder, peers(), before, inputs, rule)
        data.tokenizer.check_vocabulary(cfg.vocab_size, "config.model.vocab_size")
        check_positions(config, folder, data.lengths, resumes=latest is not None)
        meta = identity(config, data, saved)
        check_identity(folder, saved, meta)
        if is_leader():
            write_stage_files(folder, config, data.builder.rule, latest is not None, verified="data" in saved)
        keep_base(folder, config)
        steps = data.plan.steps
        config.optim.check_steps(steps)
        evaluations.begin(folder, saved, data, peers())
        if latest == steps and not evaluations.due(steps):
            return None
        if latest is not None and "data" not in saved:
            lacks = f"checkpoint {latest} has no fingerprint of its data: changes of it cannot be noticed"
            print_once(f"{config.name}: {lacks}")
        lr = schedule(config.optim, steps)
        tx = optimizer(config.optim, lr, cfg, factors)
        non_finite = NonFinite(config.train.nan, folder, data, cfg, mesh)
        begin = start(config, cfg, mesh, tx, checkpoints, folder)
        functions = StepFunctions(cfg, tx, lr, mesh, metrics, config.compile.options)
        for line in (*data.notes(), data.summary(), *functions.options.lines()):
            print_once(f"{config.name}: {line}")
        if is_leader():
            drop_lines_after(folder, begin.step if saved else -1, keep_lost=checkpoints.found_damage)
        evaluations.resume(begin.step, checkpoints.best)
        goodput.first_step = goodput.last_step = begin.step
        meter = Meter(cfg, trained_groups(factors), list(mesh.devices.flat))
        about = RunInfo(folder, config.name, begin.step, steps, json.loads(config.to_json()), quiet)
        log = MetricsLog(open_writers(writers, about) if is_leader() else [], t.log_every, meter)
        failed.pop_all()
    writes = (checkpoints, log, goodput, non_finite, profiler)
    return Run(config, data, meta, mesh, rows, functions, evaluations, *writes, begin, lock)


def _loop(run: Run, stop: StopRequest, watchdog: Watchdog) -> None:
    """The steps that are left; saves when due, at the end, and before stopping on request."""
    state, frozen, done = run.begin.state, run.begin.frozen, run.begin.step
    data, steps, rows = run.data, run.data.plan.steps, run.config.data.rows
    kind = run.config.optim.loss_weights
    alone = peers() is None  # several stop only where they agree to
    batches = data.batches(done, run.rows)
    feed = watched(batches, run.config.data.timeout, lambda: alone and stop.wanted, data.builder.reading)
    bound = DataBound(run.config.name, run.config.data)
    stopped = stopping(peers(), lambda: stop.wanted)
    if not run.evaluate(done, state, stopped):
        raise Interrupted(f"{run.config.name} stopped while it was evaluated; rerun the command to resume")
    evaluated = True
    try:
        with StopAgreement(peers(), run.config.name, done, steps) as agreement:
            for step, step_batches in run.goodput.waiting(feed):
                done = run.goodput.last_step = step + 1
                placed = [sharding.place_batch(run.mesh, weighed(b, kind), rows, run.rows) for b in step_batches]
                state, metrics = run.profiler(done, run.functions, state, frozen, placed)
                watchdog.dispatched(done, metrics["loss"])
                run.log.add(done, metrics, data.counts(step))
                bound.note(run.goodput.seconds["data"])
                run.check(state)
                evaluated = run.evaluate(done, state, stopped)
                if done == steps or done % run.config.train.save_every == 0:
                    run.save(done, state)
                else:
                    run.copy(done, state)
                if not evaluated or agreement.after(done, stop.wanted):
                    break
            if done < steps:
                run.save(done, state)
    except Hanging:
        if alone:  # others would have to save with us
            run.save(done, state)
        raise
    if done < steps or not evaluated:
        raise Interrupted(f"{run.config.name} stopped after step {done} of {steps}; rerun the command to resume")
