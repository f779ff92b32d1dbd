"""What makes training fast changes no number: the same loss and gradients as transformers' own model on padded rows, with attention spelt
out, scores at every position, and one cross-entropy over all of them."""

import copy
from collections.abc import Callable
from functools import partialmethod

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from pretrain.config.schema import BertConfig, ClmConfig, Config, Gpt2Config, MlmConfig, MlmNspConfig, TrainConfig, ZeroConfig
from pretrain.data.batches import make_batches
from pretrain.data.micro_batches import micro_batches
from pretrain.model import head
from pretrain.model.acceleration import accelerate
from pretrain.model.build import Vocabulary, build_model, build_transformer
from pretrain.model.objective import combine
from tests.unit.data.corpora import random_documents, synthetic

LENGTH, SAMPLES = 32, 12
CORPUS = synthetic(random_documents(60, seed=1))
VOCABULARY = Vocabulary(CORPUS.vocab_size, pad_id=0, end_of_text_id=1)
SIZES = dict(num_layers=2, hidden_size=32, num_heads=2, dropout=0.0, initializer_range=0.2)
KINDS = {
    "mlm_nsp": (BertConfig(name="bert", max_positions=64, **SIZES), MlmNspConfig(short_sequence_probability=0.5)),
    "mlm": (BertConfig(name="bert", max_positions=64, **SIZES), MlmConfig()),
    "clm": (Gpt2Config(name="gpt2", max_positions=64, **SIZES), ClmConfig()),
}


def configured(kind: str, **train: object) -> Config:
    model, objective = KINDS[kind]
    return Config(model=model, objective=objective, train=TrainConfig(1, 1, 1, **train), zero=ZeroConfig(stage=1))


def samples(kind: str) -> dict[str, np.ndarray]:
    return make_batches(CORPUS, "train", KINDS[kind][1], LENGTH, seed=0).batch(np.arange(SAMPLES))


def tensors(batch: dict[str, np.ndarray]) -> dict[str, torch.Tensor]:
    return {name: torch.from_numpy(values) for name, values in batch.items()}


def plain_loss(kind: str, model: torch.nn.Module, fields: dict[str, torch.Tensor]) -> torch.Tensor:
    """The loss as one would write it, with transformers alone."""
    if kind == "clm":
        return F.cross_entropy(model(input_ids=fields["input_ids"]).logits.flatten(0, 1), fields["labels"].flatten())
    inputs = {name: fields[name] for name in ("input_ids", "token_type_ids", "attention_mask") if name in fields}
    found = model(**inputs)
    labels = torch.full_like(fields["input_ids"], -100)
    rows, slots = (fields["masked_labels"] != -100).nonzero(as_tuple=True)
    labels[rows, fields["masked_positions"][rows, slots]] = fields["masked_labels"][rows, slots]
    scores = found.prediction_logits if kind == "mlm_nsp" else found.logits
    loss = F.cross_entropy(scores.flatten(0, 1), labels.flatten())
    if kind == "mlm_nsp":
        loss = loss + F.cross_entropy(found.seq_relationship_logits, fields["next_sentence_label"])
    return loss


def fast_loss(model: torch.nn.Module, fields: dict[str, np.ndarray], micro_batch_size: int = SAMPLES) -> torch.Tensor:
    batches = [tensors(batch) for batch in micro_batches(fields, micro_batch_size)]
    counts = {name: sum(model.valid_counts(batch)[name] for batch in batches) for name in model.loss_names}
    return sum(combine(model(batch), counts, model.loss_names) for batch in batches)


def gradients(model: torch.nn.Module, loss: torch.Tensor) -> dict[str, torch.Tensor]:
    loss.backward()
    return {name.removeprefix("model."): param.grad for name, param in model.named_parameters()}


def assert_equal(found: tuple[torch.nn.Module, torch.Tensor], wanted: tuple[torch.nn.Module, torch.Tensor]) -> None:
    """Loss and gradients within 1e-5; a gradient that is zero but for rounding (an attention's key bias) by the whole one's size."""
    torch.testing.assert_close(found[1], wanted[1], rtol=1e-5, atol=0)
    ours, theirs = gradients(*found), gradients(*wanted)
    assert ours.keys() == theirs.keys()
    whole = torch.stack([grad.norm() for grad in theirs.values()]).norm()
    for name, grad in theirs.items():
        assert (ours[name] - grad).norm() <= 1e-5 * grad.norm() + 1e-7 * whole, name


def transformers_model(kind: str) -> torch.nn.Module:
    """With attention spelt out, in the mode of training."""
    torch.manual_seed(0)
    model = build_transformer(configured(kind), VOCABULARY).train()
    model.set_attn_implementation("eager")
    return model


def our_model(kind: str, **train: object) -> torch.nn.Module:
    torch.manual_seed(0)
    config = configured(kind, **train)
    model = build_model(config, VOCABULARY).train()
    accelerate(model, config, on_gpu=False)
    return model


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_as_transformers_on_padded_rows(kind: str) -> None:
    """Sequences end to end, attention within each, the head on targets alone, no matrix of all scores."""
    fields, plain, ours = samples(kind), transformers_model(kind), our_model(kind)
    assert "attention_mask" not in fields or not fields["attention_mask"].all()
    assert_equal((ours, fast_loss(ours, fields)), (plain, plain_loss(kind, plain, tensors(fields))))


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_in_micro_batches_of_any_size(kind: str) -> None:
    fields, whole, parts = samples(kind), our_model(kind), our_model(kind)
    assert_equal((parts, fast_loss(parts, fields, micro_batch_size=1)), (whole, fast_loss(whole, fields)))


@pytest.mark.parametrize("kind", KINDS)
def test_the_head_in_many_pieces(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    fields, whole, pieces = samples(kind), our_model(kind), our_model(kind)
    wanted = fast_loss(whole, fields)
    monkeypatch.setattr(head, "PIECE_ELEMENTS", 5 * VOCABULARY.padded_size)
    assert_equal((pieces, fast_loss(pieces, fields)), (whole, wanted))


@pytest.mark.parametrize("kind", KINDS)
def test_activation_checkpointing(kind: str) -> None:
    """With dropout: the second forward draws what the first did."""
    fields = samples(kind)
    models = [our_model(kind), our_model(kind, activation_checkpointing=True)]
    results = []
    for model in models:
        for module in model.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.3
        torch.manual_seed(1)
        results.append((model, fast_loss(model, fields)))
    assert_equal(results[1], results[0])


@pytest.mark.parametrize("backend", ["aot_eager", pytest.param("inductor", marks=pytest.mark.soak)])
@pytest.mark.parametrize("kind", KINDS)
def test_compiled(kind: str, backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """One graph for all layers and all micro-batches, whatever their number of tokens. The quick backend takes the same graph, forward and
    backward, and runs its operators as they are; the other is the default, which takes a C++ compiler and half a minute."""
    monkeypatch.setattr(torch.nn.Module, "compile", partialmethod(torch.nn.Module.compile, backend=backend))
    fields, eager, compiled = samples(kind), our_model(kind), our_model(kind, compile=True)
    torch._dynamo.reset()
    counters = torch._dynamo.utils.counters
    counters.clear()
    wanted = fast_loss(eager, fields, micro_batch_size=4)
    assert_equal((compiled, fast_loss(compiled, fields, micro_batch_size=4)), (eager, wanted))
    assert counters["stats"]["unique_graphs"] == 1 and not counters["graph_break"]


def test_evaluation_scores_are_those_of_all_scores() -> None:
    fields = samples("mlm_nsp")
    model, plain = our_model("mlm_nsp").eval(), transformers_model("mlm_nsp").eval()
    (batch,) = (tensors(batch) for batch in micro_batches(fields, SAMPLES))
    with torch.no_grad():
        sums, padded = model(batch), tensors(fields)
        found = plain(**{name: padded[name] for name in ("input_ids", "token_type_ids", "attention_mask")})
    labels = padded["masked_labels"]
    scores = found.prediction_logits.gather(1, padded["masked_positions"][..., None].expand(-1, -1, VOCABULARY.padded_size))
    losses = F.cross_entropy(scores.flatten(0, 1), labels.flatten(), reduction="none").view_as(labels)
    replaced = padded["replaced_by_mask"]
    wanted = {
        "mlm": losses.sum(),
        "mlm_correct": ((scores.argmax(-1) == labels) & (labels != -100)).sum(),
        "mask_token_loss": losses[replaced].sum(),
        "mask_token_count": replaced.sum(),
        "nsp": F.cross_entropy(found.seq_relationship_logits, padded["next_sentence_label"], reduction="sum"),
        "nsp_correct": (found.seq_relationship_logits.argmax(-1) == padded["next_sentence_label"]).sum(),
    }
    assert sums.keys() == wanted.keys()
    for name, value in wanted.items():
        torch.testing.assert_close(sums[name], value, rtol=1e-5, atol=0)


def test_a_training_model_keeps_the_names_and_the_weights_of_transformers() -> None:
    for kind in KINDS:
        plain, ours = transformers_model(kind), our_model(kind, compile=True)
        assert {f"model.{name}" for name in plain.state_dict()} == ours.state_dict().keys()
        assert [f"model.{name}" for name, _ in plain.named_parameters()] == [name for name, _ in ours.named_parameters()]
        clone = copy.deepcopy(plain)
        clone.load_state_dict({name.removeprefix("model."): value for name, value in ours.state_dict().items()})
        assert all(torch.equal(value, clone.state_dict()[name]) for name, value in plain.state_dict().items())


def test_the_flash_kernel_for_variable_lengths_takes_what_it_is_given() -> None:
    """Its arguments, without a GPU: on torch's device without storage."""
    from pretrain.model.attention import Sequences, _flash

    with torch.device("meta"):
        sequences = Sequences(
            torch.zeros(4, dtype=torch.int32), torch.ones(3, 8, dtype=torch.bool), torch.zeros(20, dtype=torch.int64), True
        )
        query, key, value = (torch.zeros(20, 2, 16, dtype=torch.bfloat16, requires_grad=True) for _ in range(3))
        mixed = _flash(query, key, value, sequences, 0.1, 0.25)
    assert mixed.shape == (20, 2, 16) and mixed.requires_grad


@pytest.mark.parametrize(("dtype", "bound"), [(torch.float32, 1e-6), (torch.bfloat16, 1e-2), (torch.float16, 1e-3)], ids=str)
def test_the_head_in_every_precision(dtype: torch.dtype, bound: float) -> None:
    """Against float64: the sum is not rounded to the weights' dtype, and gradients only once. Most scores' gradients are below what
    float16 can hold."""
    torch.manual_seed(0)
    linear = torch.nn.Linear(16, 4000).to(dtype)
    hidden, labels = torch.randn(60, 16, dtype=dtype), torch.randint(0, 4000, (60,))
    labels[::7] = -100
    scale = 2.0**-7

    def run(layer: torch.nn.Linear, values: torch.Tensor, loss: Callable[..., torch.Tensor]) -> list[torch.Tensor]:
        values = values.clone().requires_grad_()
        total = loss(layer, values)
        (total * scale).backward()
        return [total.detach(), values.grad, layer.weight.grad, layer.bias.grad]

    found = run(head.LossHead.of(linear).train(), hidden, lambda layer, values: layer(values, labels))
    wanted = run(
        copy.deepcopy(linear).double().requires_grad_(),
        hidden.double(),
        lambda layer, values: F.cross_entropy(layer(values), labels, ignore_index=-100, reduction="sum"),
    )
    assert found[0].dtype == torch.float32 and all(grad.dtype == dtype for grad in found[1:])
    for ours, theirs in zip(found, wanted, strict=True):
        assert (ours.double() - theirs).norm() <= bound * theirs.norm()


def test_products_in_float32_on_a_gpu_take_what_they_are_given() -> None:
    """The operator's arguments, without a GPU."""
    with torch.device("meta"):
        product = torch.mm(torch.zeros(8, 4, dtype=torch.bfloat16).t(), torch.zeros(8, 3, dtype=torch.bfloat16), out_dtype=torch.float32)
    assert product.shape == (4, 3) and product.dtype == torch.float32
