"""Training, from prepared text to an evaluated and exported model. `Trainer.run` is the story; the rest is its chapters."""

import hashlib
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from pretrain import distributed, initial_weights, micro_batch, rank_log, startup, stopping
from pretrain.batch_plan import BatchPlan
from pretrain.checkpoint import manifest
from pretrain.checkpoint.keeper import Keeper
from pretrain.checkpoint.progress import Progress
from pretrain.config.schema import Config
from pretrain.data.batches import make_batches
from pretrain.data.loader import windows
from pretrain.data.mixture import Mixture, mixture_of
from pretrain.data.prepared import Prepared
from pretrain.engine import Engine, StepResult
from pretrain.errors import UserError
from pretrain.exit_codes import DIVERGED, DONE, FAULT, STOPPED_ON_REQUEST
from pretrain.memory import memory_bytes
from pretrain.model.acceleration import accelerate
from pretrain.model.build import build_model, vocabulary_of
from pretrain.model.flops import Utilisation
from pretrain.model.pretrained import export
from pretrain.optim import build_optimizer
from pretrain.plan.of_run import make_plan
from pretrain.profiling import MemorySnapshot, StepProfiler
from pretrain.provenance import processor
from pretrain.recorder import Recorder
from pretrain.run_folder import Beginning, RunFolder
from pretrain.schedule import learning_rate
from pretrain.shared_data import open_on_all_ranks
from pretrain.spikes import SpikeGuard
from pretrain.stopwatch import Stopwatch
from pretrain.summary import summarise
from pretrain.timeline import OTHER, Timeline
from pretrain.validation import evaluate, unigram_loss

_MEMORY_EVERY = 10
"""Lines of `train` to one of every rank's `memory`, which changes little after the first step."""


def train(config: Config, prepared_folder: Path) -> int:
    """Train, evaluate and export one run, as one of its ranks; returns the exit code. Every rank calls it."""
    distributed.init(config.launch.timeout_seconds, config.launch.rendezvous_timeout_seconds)
    startup.mark("process_group")
    prepared, folder = open_on_all_ranks(prepared_folder), RunFolder.of(config)
    startup.mark("prepared_data")
    config = micro_batch.settle(config, vocabulary_of(prepared), folder.metrics)
    startup.mark("micro_batch")
    mixture = mixture_of(prepared, config.data)
    fingerprint = prepared.fingerprint + mixture.signature
    beginning = distributed.on_main(lambda: folder.inspect(config, fingerprint, mixture.names))
    code = Trainer(config, prepared, mixture, folder, beginning, fingerprint).run()
    if code == DONE and distributed.is_main():
        print(summarise(folder))
    return code


class Trainer:
    """One run on this rank: everything it needs, set up in `__init__`, and the loop."""

    def __init__(
        self, config: Config, prepared: Prepared, mixture: Mixture, folder: RunFolder, beginning: Beginning, data_fingerprint: str
    ) -> None:
        self.config, self.prepared, self.folder = config, prepared, folder
        self.beginning, self.data_fingerprint = beginning, data_fingerprint
        self.batch = BatchPlan.of(config.train, distributed.world_size())
        data = config.objective, config.data.max_seq_length, config.run.seed, mixture
        self.training = make_batches(prepared, "train", *data)
        self.validation = make_batches(prepared, "valid", *data)
        vocabulary = vocabulary_of(prepared)
        startup.mark("prepared_data")
        samples = config.train.num_steps * self.batch.global_batch_size
        self.plan = make_plan(config, self.batch.world_size, vocabulary, self.training.epochs(samples))
        gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else ""
        self.device = gpu or processor()
        self.utilisation = Utilisation(config, vocabulary.padded_size, gpu)
        self.initial_weights = (
            None if beginning.candidates else initial_weights.find(config, vocabulary, prepared.manifest["vocabulary_hash"])
        )

        startup.mark("plan")
        torch.manual_seed(config.run.seed)
        model = build_model(config, vocabulary)
        accelerate(model, config, torch.cuda.is_available())
        startup.mark("model")
        self.engine = Engine(model, build_optimizer(config.optimizer, model, config.run.seed), config, self.batch)
        self.progress = Progress(loss_scale=self.engine.loss_scale)
        startup.mark("engine")
        distributed.on_main(self._claim_folder)
        rank_log.open_log(folder.logs, self.batch.world_size)
        self.recorder = Recorder(config, folder, self.plan)
        self.keeper = Keeper(self.engine, config, folder, self.recorder, prepared.tokenizer_dir, self._about())
        self._control = distributed.cpu_group() if torch.cuda.is_available() else None
        self.stopwatch = Stopwatch(self.recorder.earlier_seconds)
        profiled, remembered = (config.train.profile_steps, config.train.memory_snapshot_steps) if distributed.is_main() else ([], [])
        self.profiler = StepProfiler(profiled, folder.profile, distributed.rank(), self.recorder.say)
        self.snapshot = MemorySnapshot(remembered, folder.profile, distributed.rank(), self.recorder.say)
        self._layout_told = self._memory_told = False
        self._epochs: dict[str, int] = {}

    def run(self) -> int:
        """Train to the end of the schedule, export the model; returns the exit code."""
        startup.mark("run_folder")
        self._begin()
        startup.mark("beginning")
        with stopping.held():
            code = self._train()
            if code == DONE and self._is_asked_to_stop():
                code = self._stop_on_request()
            if code != DONE:
                self.recorder.close()
                stopping.over()
                return code
        exported = not self.config.run.export or self._export()
        stopping.over()
        distributed.barrier()  # no rank can be asked to stop any more
        if exported:
            self._record("end")
        return DONE if self.recorder.close() and exported else FAULT

    def _train(self) -> int:
        """From where the run stands to the end of the schedule, or to where it has to stop."""
        config, progress = self.config.train, self.progress
        stream = windows(
            self.training,
            progress.position(config.global_batch_size),
            config.global_batch_size,
            config.micro_batch_size,
            distributed.rank(),
            self.batch.world_size,
        )
        self.guard = SpikeGuard(config.spike_sigma, progress.recent_grad_norms) if config.spike_sigma else None
        refuse = self.guard.refuses if self.guard else None
        skipped_in_a_row = 0
        self._epochs = self._whole_epochs()
        while progress.step < config.num_steps:
            if self._is_asked_to_stop():
                return self._stop_on_request()
            number = progress.step + 1
            logged = self._is_due(config.log_every_steps, number) or number == 1
            with self.profiler.step(number), self.snapshot.step(number), self.stopwatch("step"), self.engine.timed(logged) as parts:
                with self.stopwatch("data"), parts("data"):
                    window = next(stream)
                self.utilisation.add(window)
                startup.mark("first_batch")
                self._seed_dropout()
                lr = learning_rate(self.config.schedule, self.config.optimizer.lr, progress.step, config.num_steps)
                loss = self.engine.accumulate(window)
                result = self.engine.step(lr, observe_updates=logged, refuse=refuse)
            self._tell_startup()
            if not result.applied:
                skipped_in_a_row += not result.loss_scale_search
                self._skip(result)
                if skipped_in_a_row >= config.max_skipped_steps:
                    return self._stop_diverged(result, skipped_in_a_row)
                continue
            skipped_in_a_row = 0
            if self.guard:
                self.guard.accept(result.grad_norm)
            progress.step += 1
            self._tell(progress.step)
            memory = self._measure_memory(logged)
            if logged:
                self._log(loss, lr, result, parts, memory)
            if self._is_due(config.eval_every_steps, progress.step):
                self._evaluate()
            if self._is_due(config.checkpoint_every_steps, progress.step):
                self.keeper.save(progress)
        stream.close()
        return DONE if self.keeper.is_saved(progress) else FAULT

    # Beginning and end --------------------------------------------------------------------------------------------------------

    def _claim_folder(self) -> None:
        try:
            self._lock = self.folder.lock()  # until this process ends
            self._refuse_if_moved_on()
            self.folder.claim(self.config)
            self.folder.keep_tokenizer(self.prepared.tokenizer_dir)
            self.folder.checkpoint_folder.clean()
            self._restore_wandb_id()
        except OSError as error:
            raise UserError(f"the run folder {self.folder.path} cannot be written ({error.strerror}); give another run.dir") from error

    def _refuse_if_moved_on(self) -> None:
        """Another process may have trained until a moment ago: what was found before the lock was had would supersede its steps."""
        if self.folder.inspect(self.config, self.data_fingerprint, self.training.mixture.names) != self.beginning:
            raise UserError(f"the run in {self.folder.path} moved on meanwhile, by another process; give the same command again")

    def _restore_wandb_id(self) -> None:
        """From the checkpoint, where the file is gone: a continued run stays one run there."""
        newest = self.folder.latest_checkpoint()
        if newest is not None and not self.folder.wandb_id.exists() and (found := manifest.read(newest)["wandb_id"]):
            self.folder.wandb_id.write_text(found)

    def _about(self) -> dict[str, Any]:
        """What the checkpoints say of the run besides its progress; rank 0's is used."""
        return {
            "config": asdict(self.config),
            "data_fingerprint": self.data_fingerprint,
            "vocabulary_hash": self.prepared.manifest["vocabulary_hash"],
            "ranks": self.batch.world_size,
            "wandb_id": self.folder.wandb_id.read_text().strip() if self.folder.wandb_id.exists() else None,
            **self.recorder.made_with,
        }

    def _begin(self) -> None:
        self.recorder.show_plan(self.plan)
        if self.beginning.candidates:
            vars(self.progress).update(vars(self.keeper.go_on(self.beginning.candidates)))
        origin = self._take_initial_weights()
        if not self.beginning.begun:
            unigram = unigram_loss(self.prepared, self.validation, self.config) if distributed.is_main() else 0.0
            data = {"data_fingerprint": self.data_fingerprint, "sources": self.training.mixture.names}
            facts = {**data, "plan": self.plan.as_dict(), "device": self.device, **origin}
            self.recorder.record("start", 0, unigram_loss=unigram, **facts, **self.recorder.made_with)
        if self.beginning.begun or self.beginning.candidates:
            before, now = self.beginning.ranks or self.batch.world_size, self.batch.world_size
            changed = [*self.beginning.changed, *([f"ranks: {before} -> {now}"] if before != now else [])]
            about = {"ranks": self.batch.world_size, "plan": self.plan.as_dict(), "changed": changed, "device": self.device, **origin}
            self._record("resume", **about, **self.recorder.made_with)
            self.recorder.say(f"going on from step {self.progress.step} of the run in {self.folder.path}")
            if changed:
                self.recorder.say(f"changed since then, without an effect on the mathematics: {'; '.join(changed)}")
        self._record("memory", **distributed.over_ranks(memory_bytes(self.engine)))

    def _take_initial_weights(self) -> dict[str, Any]:
        """Begin with weights from elsewhere, where they are given; what the record says of them."""
        if self.initial_weights is None:
            return {}
        found, self.initial_weights = self.initial_weights, None  # they need memory
        found.load(self.engine)
        for line in found.told:
            self.recorder.say(line)
        return {"init_from": found.origin}

    def _export(self) -> bool:
        """Whether the model could be written; says so where it could not."""
        final = self.folder.checkpoint(self.progress.step)
        try:
            distributed.on_main(lambda: export(self.config, self.folder.tokenizer, final, self.folder.export))
        except OSError as error:
            if distributed.is_main():
                print(
                    f"error: the model could not be written to {self.folder.export} ({error.strerror or error}); {final.name} is whole: "
                    f"see to the folder and give the same command again",
                    file=sys.stderr,
                )
            return False
        return True

    def _stop_on_request(self) -> int:
        """A checkpoint, unless nothing has happened yet; the same command goes on from it."""
        if self.progress.position(1) == 0:
            self._record("stop")
            self.recorder.say("stopped on request before the first step; the same command begins again")
            return STOPPED_ON_REQUEST
        if not self.keeper.is_saved(self.progress):
            return FAULT
        self._record("stop")
        self.recorder.say(f"stopped on request after step {self.progress.step}; the same command goes on from there")
        return STOPPED_ON_REQUEST

    def _stop_diverged(self, result: StepResult, skipped: int) -> int:
        self.keeper.is_saved(self.progress)
        self._record("end", diverged=True)
        if distributed.is_main():
            mend = "a larger train.spike_sigma" if result.reason == "spike" else "train.grad_clip=1.0"
            print(
                f"error: {skipped} steps in a row were skipped, the last because {result.why}; give a lower optimizer.lr or {mend}",
                file=sys.stderr,
            )
        return DIVERGED

    # In the middle ------------------------------------------------------------------------------------------------------------

    def _is_asked_to_stop(self) -> bool:
        """Whether any rank was, which all hear alike; a checkpoint that is asked for, or due for another try, is begun on the way."""
        self.keeper.listen()
        flags = [stopping.requested(), stopping.save_requested() or self.keeper.retry_is_due]
        stop, save = distributed.any_over_ranks(flags, self._control)
        if save and not stop and self.progress.position(1):
            self.keeper.save(self.progress)
        return stop

    def _is_due(self, every: int, step: int) -> bool:
        """Whether `step` is one in `every` (0: never) or the last."""
        return (every > 0 and step % every == 0) or step == self.config.train.num_steps

    def _tell_startup(self) -> None:
        """Once, after the first step of this process: how long it took to get there."""
        if seconds := startup.finish("first_step"):
            self._record("startup", self.progress.step + 1, **{f"{part}_seconds": value for part, value in seconds.items()})
            self.recorder.say(startup.describe(seconds))

    def _tell(self, step: int) -> None:
        """The bar, the layout that CAME found, and a word when the data begin anew."""
        self.recorder.show_progress(step)
        if not self._layout_told:
            self._layout_told = True
            self.recorder.say(self.engine.optimizer.describe())
        before, self._epochs = self._epochs, self._whole_epochs()
        for name, epoch in self._epochs.items():
            if epoch != before[name]:
                self.recorder.say(f"step {step}: epoch {epoch + 1} begins" + (f" for {name}" if len(self._epochs) > 1 else ""))

    def _whole_epochs(self) -> dict[str, int]:
        """Passes over each source that are behind."""
        return {name: int(epochs) for name, epochs in self.training.epochs(self.progress.position(self.batch.global_batch_size)).items()}

    def _seed_dropout(self) -> None:
        """Dropout follows from (seed, position, rank), so that a resumed run draws what the uninterrupted one would have."""
        key = f"{self.config.run.seed} {self.progress.position(self.batch.global_batch_size)} {distributed.rank()}"
        torch.manual_seed(int.from_bytes(hashlib.blake2b(key.encode(), digest_size=8).digest(), "little"))

    def _measure_memory(self, logged: bool) -> dict[str, list[int]]:
        """Each rank's memory in a step that is logged; a line of its own after the first of this process, and then with every tenth."""
        if not logged and self._memory_told:
            return {}
        memory = distributed.over_ranks(memory_bytes(self.engine))
        if not self._memory_told or self._is_due(_MEMORY_EVERY * self.config.train.log_every_steps, self.progress.step):
            self._record("memory", **memory)
            self._memory_told = True
        return memory

    def _log(self, loss: torch.Tensor, lr: float, result: StepResult, timeline: Timeline, memory: dict[str, list[int]]) -> None:
        """`step_seconds` and `data_seconds` are means over the steps since the last line; the other parts are those of this step."""
        mean_loss, statistics = self.engine.mean_loss(loss), self.engine.optimizer.statistics()
        seconds, parts = self.stopwatch.read(), timeline.seconds()
        largest = {f"memory_{name}": max(values) for name, values in memory.items()}
        self._record(
            "train",
            loss=mean_loss,
            lr=lr,
            grad_norm=result.grad_norm,
            **statistics,
            tokens_per_second=self.plan.tokens_per_step / seconds["step_seconds"],
            mfu=self.utilisation.read(seconds["step_seconds"]),
            **seconds,
            **{f"{part}_seconds": parts.get(part, 0.0) for part in ("forward", "backward", "communication", "optimizer", OTHER)},
            memory_params_bytes=max(map(sum, zip(memory["weights_bytes"], memory["masters_bytes"]))),
            **largest,
            **self._drawn(),
        )

    def _drawn(self) -> dict[str, int]:
        """Samples that came from each source so far, where there are several."""
        drawn = self.training.drawn(self.progress.position(self.batch.global_batch_size))
        return {f"samples_from_{name}": number for name, number in drawn.items()} if len(drawn) > 1 else {}

    def _evaluate(self) -> None:
        self._record("eval", **evaluate(self.engine, self.validation, self.config))

    def _skip(self, result: StepResult) -> None:
        self.progress.skipped_steps += 1
        step, about = self.progress.step + 1, {"parameter": result.bad_parameter}
        if result.reason == "spike":
            about = {"standard_deviations": self.guard.distance(result.grad_norm)}
        self._record("skip", step, reason=result.reason, grad_norm=result.grad_norm, loss_scale=self.engine.loss_scale, **about)
        self.recorder.say(f"step {step} skipped: {result.why}")

    def _record(self, kind: str, step: int | None = None, **values: object) -> None:
        samples = self.progress.position(self.batch.global_batch_size)
        self.recorder.record(
            kind,
            self.progress.step if step is None else step,
            samples=samples,
            tokens=samples * self.config.data.max_seq_length,
            wall_seconds=self.stopwatch.wall_seconds,
            skipped_steps=self.progress.skipped_steps,
            **values,
        )
