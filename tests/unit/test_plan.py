"""The plan of a dry run: right numbers for any number of ranks, from nothing but the settings."""

import pytest

from pretrain.config.compose import compose
from pretrain.model.build import Vocabulary
from pretrain.plan.of_run import make_plan, render


def test_the_papers_plan() -> None:
    plan = make_plan(compose(["+experiment=bert_32k"]), 8, Vocabulary(30_522))
    assert (plan.micro_batch_size, plan.gradient_accumulation_steps, plan.ranks, plan.global_batch_size) == (16, 256, 8, 32768)
    assert (plan.vocabulary, plan.tokens_per_step, plan.steps, plan.warmup_steps) == (30528, 32768 * 128, 20000, 4000)
    assert plan.parameters == 336_232_258  # BertForPreTraining with 30,528 rows
    assert plan.optimizer_state_bytes / plan.adamw_state_bytes < 0.52
    assert (plan.accumulation_dtype, plan.communication_dtype) == ("fp32", "fp32")


@pytest.mark.parametrize(
    ("experiment", "parameters"), [("gpt2_small", 124_475_904), ("gpt2_medium", 354_871_296), ("gpt2_xl", 1_557_686_400)]
)
def test_published_gpt2_sizes_with_the_padded_vocabulary(experiment: str, parameters: int) -> None:
    """50,304 rows instead of 50,257: the published counts 124,439,808, 354,823,168 and 1,557,611,200 plus 47 rows."""
    assert make_plan(compose([f"+experiment={experiment}"]), 8, Vocabulary(50_257)).parameters == parameters


def test_sharding_divides_the_state() -> None:
    sizes = [make_plan(compose(["+experiment=gpt2_xl"]), ranks, Vocabulary(50_257)).optimizer_state_bytes for ranks in (1, 64)]
    assert sizes[0] / sizes[1] > 40  # not 64: each rank keeps the row and column factors of the matrices it has a part of


def test_the_plan_says_where_the_first_weights_come_from() -> None:
    def line(*settings: str) -> list[str]:
        return [
            row.strip() for row in render(make_plan(compose([*settings]), 8, Vocabulary(30_522))).splitlines() if "the weights of" in row
        ]

    assert line("+experiment=bert_32k_phase2", "run.init_from=runs/bert_32k") == [
        "from  the weights of runs/bert_32k; optimizer and schedule begin anew"
    ]
    assert line("+experiment=bert_32k_phase2") == ["from  the weights of (give run.init_from); optimizer and schedule begin anew"]
    assert line("+experiment=bert_32k") == []


def test_a_dry_run_takes_the_size_of_the_vocabulary_it_is_given(fork_pretrain) -> None:
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *(f"word{number}" for number in range(120))]
    (fork_pretrain.folder / "vocab.txt").write_text("\n".join(tokens))
    done = fork_pretrain("run.dry_run=true", "tokenizer.path=vocab.txt", "tokenizer.vocab_size=null")
    assert done.returncode == 0 and "vocabulary 128," in done.stdout, done.stderr


def test_a_dry_run_asks_no_network(fork_pretrain) -> None:
    names = ("data=wikipedia", "tokenizer.path=bert-large-uncased", "tokenizer.vocab_size=null")
    done = fork_pretrain("run.dry_run=true", *names)
    assert done.returncode == 0 and "vocabulary 30,528," in done.stdout and "hub: wikimedia/wikipedia 20231101.en, train" in done.stdout


def test_a_dry_run_prints_it_and_writes_nothing(fork_pretrain) -> None:
    done = fork_pretrain("+experiment=bert_32k", "run.dry_run=true", "launch.num_processes=8")
    assert done.returncode == 0, done.stderr
    assert "micro 16 x accumulation 256 x ranks 8 = global 32,768; 4,194,304 tokens per step at length 128" in done.stdout
    assert not list(fork_pretrain.folder.iterdir())
