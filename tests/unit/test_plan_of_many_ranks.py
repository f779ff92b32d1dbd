"""The plan for more ranks than there are: what it says of published sizes, its formula for activations, its command."""

import csv
import io
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace

import pytest
import torch
from torch import nn

from came import CAME
from pretrain.config.compose import compose
from pretrain.config.schema import Config
from pretrain.config.serialise import to_yaml
from pretrain.micro_batch import _full_batch
from pretrain.model.acceleration import accelerate
from pretrain.model.build import Vocabulary, build_model
from pretrain.model.objective import PretrainingModel
from pretrain.plan.__main__ import _HARDWARE, _OPTIMIZERS, _STAGES, main
from pretrain.plan.activations import Device, activations
from pretrain.plan.deepspeed import Zero
from pretrain.plan.gathering import gathering
from pretrain.plan.many import OPTIMIZERS, STAGES, plan_ranks
from pretrain.plan.memory import Memory
from pretrain.plan.roofline import Hardware, streamed_bytes
from pretrain.plan.sizes import Sizes

BERT, GPT2 = Vocabulary(30_522), Vocabulary(50_257)

# Published sizes --------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ranks", [8, 64])
@pytest.mark.parametrize("implementation", ["eager", "auto"])
def test_cames_reductions_are_under_one_per_cent_of_bert_larges_gradient(implementation: str, ranks: int) -> None:
    config = compose(["+experiment=bert_32k", f"optimizer.implementation={implementation}"])
    gradient = 4 * 336_232_258
    for cell in plan_ranks(config, BERT, ranks, ["came"], [1, 2, 3]).cells:
        sent, first_stage = cell.communication, cell.stage == 1
        assert 0 < sent.optimizer_share < 0.01
        assert sent.gradients_payload_bytes == pytest.approx(gradient * (1 if first_stage else 32768 // 16 // ranks), rel=1e-5)
        # ZeRO-1 updates vectors together with matrices, in the same rounds.
        assert sent.optimizer_calls == {"eager": 3 if first_stage else 4, "auto": 2 if first_stage else 3}[implementation]
        # Of one reduction of the gradient, too, but for the kernels' sums in double precision where ZeRO-3 splits every matrix: 1.00 %.
        assert sent.optimizer_payload_bytes < gradient * (0.01 if implementation == "eager" or cell.stage < 3 else 0.0101)


def test_sharding_takes_away_what_it_shards() -> None:
    plan = plan_ranks(compose(["+experiment=gpt2_xl"]), GPT2, 256, ["came", "adamw"])
    found = {(cell.optimizer, cell.stage): cell for cell in plan.cells}
    for name in ("came", "adamw"):
        state = [found[name, stage].memory.held.optimizer_bytes for stage in range(4)]
        assert state[0] > 100 * state[1] and state[1] == state[2]
        assert found[name, 3].memory.held.weights_bytes < found[name, 2].memory.held.weights_bytes / 100
    assert found["came", 0].memory.held.optimizer_bytes < 0.51 * found["adamw", 0].memory.held.optimizer_bytes


def test_the_parts_add_up_to_the_peak() -> None:
    for offload in ("none", "cpu"):
        plan = plan_ranks(compose(["+experiment=gpt2_small", "zero=stage1", f"zero.offload={offload}"]), GPT2, 4, ["came"])
        for cell in plan.cells:
            held = cell.memory.held
            parts = (held.weights_bytes, held.masters_bytes, held.grads_bytes, held.optimizer_bytes, held.communication_bytes)
            assert cell.memory.transient_bytes >= 0
            assert sum(parts) - held.host_bytes + cell.memory.activations_bytes + cell.memory.transient_bytes == cell.memory.peak_bytes
            assert (held.host_bytes > 0) == (offload == "cpu" and cell.stage > 0)


def test_accumulation_costs_zero_2_and_3_communication_and_zero_1_none() -> None:
    few, many = (
        plan_ranks(compose(["+experiment=bert_32k", f"train.micro_batch_size={size}"]), BERT, 8, ["came"]).cells for size in (64, 16)
    )
    ratios = [new.communication.gradients_payload_bytes / old.communication.gradients_payload_bytes for old, new in zip(few, many)]
    assert ratios == pytest.approx([1, 1, 4, 4])


def test_a_step_s_time_follows_from_the_rates() -> None:
    config = compose(["+experiment=bert_32k"])
    (cell,), (slower,) = (
        plan_ranks(config, BERT, 8, ["came"], [1], Hardware(mfu=0.4 / factor, intra_node_gbps=450 / factor, memory_tbps=4.3 / factor)).cells
        for factor in (1, 2)
    )
    assert slower.time.serial_seconds == pytest.approx(2 * cell.time.serial_seconds)
    assert slower.time.overlapped_seconds == pytest.approx(2 * cell.time.overlapped_seconds)
    assert cell.time.compute_seconds == pytest.approx(4096 * 240.6e9 / (0.4 * 989e12), rel=0.001)  # 240.6 GFLOP for a sequence
    assert cell.time.update_seconds == pytest.approx(336_232_258 / 8 * (32 + 2) / 4.3e12, rel=1e-4)
    assert cell.time.communication_seconds == pytest.approx(336_232_258 * (2 * 4 + 2) * 7 / 8 / 450e9, rel=1e-4)


def test_single_precision_is_reckoned_at_its_own_peak() -> None:
    ranks, tokens = 8, ["data.max_seq_length=128", "train.global_batch_size=256"]
    (half,), (single,) = (
        plan_ranks(compose(["+experiment=bert_32k", *tokens, f"train.precision={precision}"]), BERT, ranks, ["came"], [1]).cells
        for precision in ("bf16", "fp32")
    )
    assert single.time.compute_seconds == pytest.approx(half.time.compute_seconds * 989 / 67)
    (given,) = plan_ranks(compose(["+experiment=bert_mini"]), BERT, ranks, ["came"], [1], Hardware(peak_tflops=67.0)).cells
    assert given == plan_ranks(compose(["+experiment=bert_mini"]), BERT, ranks, ["came"], [1]).cells[0]


def test_an_update_in_the_host_s_memory_has_no_planned_time(capsys: pytest.CaptureFixture[str]) -> None:
    settings = ["+experiment=gpt2_small", "zero=stage1", "zero.offload=cpu", "--optimizer", "came", "--stage", "0,1"]
    assert main([*settings, "launch.num_processes=4"]) == 0
    out = capsys.readouterr().out
    assert "the host makes the update: its time, and a step's, are not planned" in out
    on_gpu, offloaded = out.splitlines()[-2:]
    assert "-" not in on_gpu.split() and offloaded.split()[-3:] == ["-", "-", "-"]
    assert main([*settings, "launch.num_processes=4", "--format", "csv"]) == 0
    on_gpu, offloaded = csv.DictReader(io.StringIO(capsys.readouterr().out))
    assert float(on_gpu["serial_seconds"]) > 0 and offloaded["update_seconds"] == offloaded["serial_seconds"] == ""
    assert float(offloaded["compute_seconds"]) > 0


# Activations ------------------------------------------------------------------------------------------------------------------------


def tiny(family: str, precision: str, *settings: str) -> Config:
    kind = {"bert": ["model=bert_tiny", "objective=mlm_nsp"], "gpt2": ["model=gpt2_tiny", "objective=clm"]}[family]
    sizes = ["model.num_layers=3", "model.hidden_size=96", "model.num_heads=4", "model.max_positions=128", "data.max_seq_length=64"]
    return compose([*kind, *sizes, f"train.precision={precision}", *settings])


@contextmanager
def bytes_saved(model: nn.Module, batch: dict[str, torch.Tensor]) -> Iterator[list[int]]:
    """Of all storage that autograd keeps within the block and that is neither the model's nor the batch's."""
    theirs = {tensor.untyped_storage().data_ptr() for tensor in (*model.parameters(), *model.buffers(), *batch.values())}
    kept: dict[int, torch.Tensor] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.untyped_storage().data_ptr() not in theirs:
            kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    found: list[int] = []
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        yield found
    found.append(sum(tensor.untyped_storage().nbytes() for tensor in kept.values()))


def without_attention_dropout(model: PretrainingModel) -> None:
    """So that a CPU takes its flash kernel, as a GPU does with and without."""
    for layer in model.layers:
        for name, module in layer.named_modules():
            if name in ("attn.attn_dropout", "attention.self.dropout"):
                module.p = 0.0


@pytest.mark.parametrize("checkpointing", ["false", "true"], ids=["", "checkpointing"])
@pytest.mark.parametrize("dropout", ["0", "0.1"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("family", ["bert", "gpt2"])
def test_autograd_keeps_what_the_formula_says(family: str, precision: str, dropout: str, checkpointing: str) -> None:
    config = tiny(family, precision, f"model.dropout={dropout}", f"train.activation_checkpointing={checkpointing}")
    vocabulary, size = Vocabulary(700, 0, 1), 6
    model = build_model(config, vocabulary).to({"fp32": torch.float32, "bf16": torch.bfloat16}[precision]).train()
    without_attention_dropout(model)
    accelerate(model, config, on_gpu=False)
    batch = _full_batch(config, vocabulary, size)
    with bytes_saved(model, batch) as found:
        sums = model(batch)
    assert set(sums) == set(model.loss_names)
    assert activations(config, vocabulary.padded_size, size, Device(gpu=False)).kept_bytes == pytest.approx(found[0], rel=0.02)


def test_sentence_pairs_are_padded_where_there_is_no_flash_kernel() -> None:
    """In single precision on a GPU as well: each layer keeps the attention's result once more."""
    for precision, item, padded in (("fp32", 4, True), ("bf16", 2, False)):
        with_pairs, without = (tiny("bert", precision, "model.dropout=0", f"objective={kind}") for kind in ("mlm_nsp", "mlm"))
        more = activations(with_pairs, 700, 6).kept_bytes - activations(without, 700, 6).kept_bytes
        assert more == item * 2 * 6 * 96 + padded * 3 * item * 6 * 64 * 96


def test_compiled_layers_keep_what_the_formula_says() -> None:
    """torch.compile's choice of what to keep, by its partitioner; without the kernels, which need a C++ compiler."""
    config, vocabulary, size = tiny("gpt2", "bf16", "model.dropout=0.1", "model.num_layers=1"), Vocabulary(700, 0, 1), 24
    model = build_model(config, vocabulary).bfloat16().train()
    without_attention_dropout(model)
    batch = _full_batch(config, vocabulary, size)
    for layer in model.layers:
        layer.compile(dynamic=True, backend="aot_eager_decomp_partition")
    with bytes_saved(model, batch) as found:
        model(batch)
    planned = activations(config, vocabulary.padded_size, size, Device(gpu=False, compiled=True)).kept_bytes
    assert planned == pytest.approx(found[0], rel=0.02)


def test_checkpointing_keeps_the_layers_inputs_alone() -> None:
    plain, checkpointed = (
        activations(compose(["+experiment=gpt2_xl", f"train.activation_checkpointing={how}"]), 50_304, 4) for how in ("false", "true")
    )
    layers = 48 * 2 * 4 * 1024 * 1600  # bf16 inputs of 48 layers
    assert plain.kept_bytes > 10 * layers
    assert layers < checkpointed.kept_bytes < 2 * layers
    assert checkpointed.recomputed_bytes == pytest.approx((plain.kept_bytes - (checkpointed.kept_bytes - layers)) / 48)


# What ZeRO-3 gathers ----------------------------------------------------------------------------------------------------------------


def chain(numel: int, modules: int) -> Sizes:
    """A model of modules with one parameter each."""
    forward = tuple((place,) for place in range(modules))
    recomputing = tuple(step for module in forward[::-1] for step in (module, module))
    return Sizes(0, (((numel,),) * modules,), 0, (numel,) * modules, forward, forward[::-1], recomputing)


@pytest.mark.parametrize(("distance", "times"), [(0, 2.0), (10_000, 1.5), (10**9, 1.0)])
def test_weights_that_are_used_again_soon_are_not_gathered_again(distance: int, times: float) -> None:
    zero = Zero(
        3, "bf16", "fp32", False, stage3_prefetch_bucket_size=0, stage3_max_reuse_distance=distance, stage3_param_persistence_threshold=10
    )
    found = gathering(chain(1000, 10), zero, recompute=False)
    assert len(found.gathered) / 10 == pytest.approx(times, abs=0.11)
    assert found.most_elements <= 1000 * 10


def test_small_weights_are_never_gathered_on_the_way() -> None:
    zero = Zero(3, "bf16", "fp32", False, stage3_param_persistence_threshold=1000)
    assert gathering(chain(1000, 10), zero, recompute=False).gathered == ()


def test_the_command_s_rates_are_those_of_the_roofline() -> None:
    assert {name: default for name, (default, _) in _HARDWARE.items()} == asdict(Hardware())


def test_the_command_s_optimizers_and_stages_are_those_there_are() -> None:
    assert (_OPTIMIZERS, _STAGES) == (tuple(OPTIMIZERS), tuple(map(str, STAGES)))


@pytest.mark.parametrize(("momentum_dtype", "streamed"), [("float32", 32), ("bfloat16", 26), ("int8", 23)])
def test_an_update_moves_less_with_momentum_in_fewer_bits(momentum_dtype: str, streamed: int) -> None:
    assert streamed_bytes(CAME([torch.zeros(2, 2)], momentum_dtype=momentum_dtype).rule) == streamed


# The command ------------------------------------------------------------------------------------------------------------------------


def test_the_tables_name_every_optimizer_and_stage(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--optimizer", "came,lamb", "--stage", "0,3", "+experiment=gpt2_small", "launch.num_processes=16"]) == 0
    out = capsys.readouterr().out
    assert "x ranks 16 = global" in out and "planned with train.grad_accum_dtype=model" in out
    for name in ("came", "lamb"):
        for stage in (0, 3):
            assert sum(line.split()[:2] == [str(stage), name] for line in out.splitlines()) == 3
    assert "adamw" not in out and "989 TFLOP/s at 40% utilisation" in out


def test_csv_has_every_figure_to_the_byte(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["+experiment=bert_32k", "launch.num_processes=8", "--format", "csv", "--optimizer", "came", "--stage", "1"]) == 0
    (row,) = csv.DictReader(io.StringIO(capsys.readouterr().out))
    assert int(row["weights_bytes"]) == pytest.approx(2 * 336_232_258, rel=1e-4)
    assert int(row["optimizer_calls"]) == 2 and 0 < float(row["optimizer_share_of_gradients"]) < 0.01


def test_a_micro_batch_too_large_for_so_many_ranks_is_made_smaller_and_said(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["+experiment=gpt2_xl", "launch.num_processes=512", "--optimizer", "adamw", "--stage", "1"]) == 0
    assert "train.micro_batch_size=4: does not divide" in capsys.readouterr().out
    assert main(["+experiment=gpt2_xl", "launch.num_processes=500"]) == 2
    assert "nearest global batch: 1000, 1500" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--mfu", "0"], "--mfu=0.0 is not valid; give a number above 0"),
        (["--gpus-per-node", "x"], "invalid int value"),
        (["--stage", "4"], "argument --stage: 4 is not valid; give one or more of 0,1,2,3"),
        (["--optimizer", "came,adam"], "argument --optimizer: came,adam is not valid; give one or more of came,adamw"),
        (["--run", "nowhere"], "nowhere is no run's folder"),
        (["--run", "~nouserx/run"], "--run ~nouserx/run begins with a home that this machine does not know"),
        (["--run", "nowhere", "train.num_steps=3"], "leave one of them out"),
        (["zero.stage=9"], "zero.stage=9"),
    ],
)
def test_mistakes_are_one_line(arguments: list[str], complaint: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 2
    err = capsys.readouterr().err
    assert complaint in err and err.startswith("error: ") and err.count("\n") == 1


def logged(plan: Memory) -> dict[str, int]:
    """What a rank that holds just this would log."""
    held = plan.held
    parts = {"weights": held.weights_bytes, "masters": held.masters_bytes, "grads": held.grads_bytes, "optimizer": held.optimizer_bytes}
    parts |= {"communication": 0, "activations": 1, "peak": round(plan.peak_bytes / 1.07)}
    return {f"memory_{name}_bytes": value for name, value in parts.items()}


def test_a_run_is_compared_with_its_plan(tmp_path, capsys: pytest.CaptureFixture[str]) -> None:
    config = compose(["+experiment=bert_32k", "train.micro_batch_size=auto"])
    taken = replace(config, train=replace(config.train, micro_batch_size=16))
    (tmp_path / "config.yaml").write_text(to_yaml(config))
    lines = []
    for ranks, kind in ((8, "start"), (4, "resume")):  # then on fewer ranks: what counts is what stands now
        held = plan_ranks(taken, BERT, ranks, ["came"], [1]).cells[0].memory
        step = len(lines)
        lines += [{"kind": kind, "step": step, "plan": {"ranks": ranks, "micro_batch_size": 16, "vocabulary": 30_528}}]
        lines += [{"kind": "train", "step": step + 1, "samples": 32768 * (step + 1), **logged(held)}]
        (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        assert main(["--run", str(tmp_path)]) == 0
        rows = {line.split()[0]: line for line in capsys.readouterr().out.splitlines()[1:]}
        assert all("+0.00 %" in rows[name] for name in ("weights_bytes", "masters_bytes", "grads_bytes", "optimizer_bytes"))
        assert "+7.00 %" in rows["peak_bytes"] and f"{held.peak_bytes:,}" in rows["peak_bytes"]
    before = rows
    lines += [{"kind": "resume", "step": 3, "plan": {"ranks": 2, "micro_batch_size": 16, "vocabulary": 30_528}}]  # that only exports
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert main(["--run", str(tmp_path)]) == 0
    assert {line.split()[0]: line for line in capsys.readouterr().out.splitlines()[1:]} == before
