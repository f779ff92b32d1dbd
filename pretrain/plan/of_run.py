"""What a run is going to do, worked out before it does it: printed at the start, and by `run.dry_run=true` for any number of ranks.

Needs neither data nor GPU nor weights: the model is built without storage.
"""

from dataclasses import asdict, dataclass

from pretrain.batch_plan import BatchPlan
from pretrain.config.schema import AUTO, Config, HubDataConfig, MixtureDataConfig, PreparedDataConfig, StdlibDataConfig
from pretrain.engine_settings import COMMUNICATION_DTYPE, gradient_dtype
from pretrain.model.build import Vocabulary
from pretrain.schedule import warmup_steps

GIB = 2**30


@dataclass(frozen=True)
class Plan:
    """The effective settings of a run."""

    model: str
    parameters: int
    vocabulary: int
    """Rows of the embedding, padding included."""
    objective: str
    sequence_length: int
    optimizer: str
    learning_rate: float
    schedule: str
    warmup_steps: int
    ranks: int
    zero_stage: int
    zero_offload: str
    micro_batch_size: int | None
    """None: still to be found (a dry run of train.micro_batch_size=auto); so are the accumulation steps."""
    gradient_accumulation_steps: int | None
    global_batch_size: int
    tokens_per_step: int
    weights_dtype: str
    gradients_dtype: str
    accumulation_dtype: str
    communication_dtype: str
    optimizer_state_bytes: int
    """Largest over the ranks."""
    adamw_state_bytes: int
    """The same for AdamW at the same stage and ranks."""
    steps: int
    epochs: dict[str, float] | None
    """Passes over the training text of each source; None where the data has not been seen (a dry run)."""
    data: str
    init_from: str | None
    """Where the first weights come from; None: they are drawn."""

    def as_dict(self) -> dict:
        return asdict(self)


def make_plan(config: Config, world_size: int, vocabulary: Vocabulary, epochs: dict[str, float] | None = None) -> Plan:
    """The plan for `world_size` ranks; `epochs` where the data has been seen."""
    import torch

    from came.memory import state_bytes
    from came.rules.adamw import AdamW
    from pretrain.model.build import build_model
    from pretrain.optim import build_optimizer, parameter_groups

    train, stage = config.train, config.zero.stage
    batch = BatchPlan.of(train, world_size)
    with torch.device("meta"):
        model = build_model(config, vocabulary)
    shapes = [[tuple(param.shape) for param in group["params"]] for group in parameter_groups(model.parameters(), 0.0)]
    rule = build_optimizer(config.optimizer, model).rule
    return Plan(
        model=config.model.name,
        parameters=sum(param.numel() for param in model.parameters()),
        vocabulary=vocabulary.padded_size,
        objective=config.objective.kind,
        sequence_length=config.data.max_seq_length,
        optimizer=rule.name,
        learning_rate=config.optimizer.lr,
        schedule=config.schedule.kind,
        warmup_steps=warmup_steps(config.schedule, train.num_steps),
        ranks=world_size,
        zero_stage=stage,
        zero_offload=config.zero.offload,
        micro_batch_size=None if train.micro_batch_size == AUTO else batch.micro_batch_size,
        gradient_accumulation_steps=None if train.micro_batch_size == AUTO else batch.gradient_accumulation_steps,
        global_batch_size=batch.global_batch_size,
        tokens_per_step=batch.global_batch_size * config.data.max_seq_length,
        weights_dtype=train.precision if train.precision == "fp32" else f"{train.precision}, fp32 masters",
        gradients_dtype=train.precision,
        accumulation_dtype=gradient_dtype(config),
        communication_dtype=COMMUNICATION_DTYPE,
        optimizer_state_bytes=max(state_bytes(rule, shapes, world_size, stage)),
        adamw_state_bytes=max(state_bytes(AdamW.rule, shapes, world_size, stage)),
        steps=train.num_steps,
        epochs=epochs,
        data=describe_data(config),
        init_from=config.run.init_from,
    )


def print_plan(config: Config, world_size: int) -> None:
    """The plan of a dry run."""
    print(render(make_plan(config, world_size, expected_vocabulary(config))))


def expected_vocabulary(config: Config) -> Vocabulary:
    """That of the tokenizer's files, or else the one that it would be trained to; no network is asked, so that a tokenizer of the hub is
    taken for the published one."""
    from pretrain.data.tokenizer import build_tokenizer, check_bpe_size, tokenizer_kind
    from pretrain.data.tokenizer_files import PUBLISHED_VOCAB_SIZE
    from pretrain.hub_files import names_the_hub

    kind = tokenizer_kind(config.tokenizer, config.model.family)
    size = config.tokenizer.vocab_size or PUBLISHED_VOCAB_SIZE[kind]
    if config.tokenizer.path is not None and not names_the_hub(config.tokenizer.path):
        size = build_tokenizer(config.tokenizer, kind, lambda: iter(())).get_vocab_size()
    elif config.tokenizer.path is None and kind == "bpe" and not isinstance(config.data, PreparedDataConfig):
        check_bpe_size(size)
    return Vocabulary(size)


def render(plan: Plan) -> str:
    """The plan as aligned lines of text."""
    offload = "" if plan.zero_offload == "none" else ", fp32 masters and optimizer state in the host's memory"
    share = plan.optimizer_state_bytes / plan.adamw_state_bytes
    rows = [
        ("model", f"{plan.model}, {plan.parameters:,} parameters, vocabulary {plan.vocabulary:,}, {plan.objective}"),
        ("data", plan.data),
        ("ranks", f"{plan.ranks}, ZeRO stage {plan.zero_stage}{offload}"),
        (
            "batch",
            f"micro {plan.micro_batch_size or AUTO} x accumulation {plan.gradient_accumulation_steps or AUTO} x ranks {plan.ranks} = global "
            f"{plan.global_batch_size:,}; {plan.tokens_per_step:,} tokens per step at length {plan.sequence_length}",
        ),
        (
            "precision",
            f"weights {plan.weights_dtype}; gradients {plan.gradients_dtype}; accumulation {plan.accumulation_dtype}; "
            f"communication {plan.communication_dtype}",
        ),
        (
            "optimizer",
            f"{plan.optimizer}, peak lr {plan.learning_rate:g}; state {_size(plan.optimizer_state_bytes)} per rank, "
            f"{share:.2f} of AdamW's {_size(plan.adamw_state_bytes)}",
        ),
        ("schedule", f"{plan.schedule}, {plan.warmup_steps:,} of {plan.steps:,} steps warm-up"),
        ("length", f"{plan.steps:,} steps{_epochs(plan.epochs)}"),
    ]
    if plan.init_from is not None:
        rows.insert(1, ("from", f"the weights of {plan.init_from or '(give run.init_from)'}; optimizer and schedule begin anew"))
    return "\n".join(f"{name:>10}  {text}" for name, text in rows)


def describe_data(config: Config) -> str:
    """The corpus in words."""
    match config.data:
        case StdlibDataConfig():
            return "stdlib: the text that Python itself carries, for trying things out (your corpus: data=text data.paths=[...])"
        case HubDataConfig() as hub:
            return f"hub: {hub.name or 'no data.name yet'}{f' {hub.subset}' if hub.subset else ''}, {hub.split}"
        case MixtureDataConfig() as mixture:
            total = sum(source.weight for source in mixture.mixture.values())
            return "mixture: " + ", ".join(f"{source.weight / total:.1%} {name}" for name, source in mixture.mixture.items())
        case PreparedDataConfig() as given:
            return f"prepared: {given.path}"
    return f"text: {', '.join(config.data.paths) or 'no data.paths yet'}"


def _epochs(epochs: dict[str, float] | None) -> str:
    if not epochs:
        return ""
    if len(epochs) == 1:
        return f", {next(iter(epochs.values())):.2f} epochs"
    return ", epochs: " + ", ".join(f"{name} {number:.2f}" for name, number in epochs.items())


def _size(num_bytes: int) -> str:
    return f"{num_bytes / GIB:.2f} GiB" if num_bytes >= GIB / 10 else f"{num_bytes / 2**20:.2f} MiB"
