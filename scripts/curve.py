"""A run's curve as Markdown, for a dated file in scripts/bench_results: python scripts/curve.py RUN_FOLDER [ROWS]"""

import sys
from pathlib import Path

from pretrain.metrics import last, read_metrics

TRAIN = {"loss": ".4f", "lr": ".2e", "grad_norm": ".3f", "update_rms": ".3f", "tokens_per_second": ",.0f"}
EVAL = {"loss": ".4f", "mlm_loss": ".4f", "mlm_accuracy": ".4f", "mask_token_loss": ".4f", "nsp_accuracy": ".4f", "perplexity": ".2f"}


def main(folder: str, rows: str = "12") -> None:
    lines = read_metrics(Path(folder) / "metrics.jsonl")
    start = last(lines, "start")
    plan = start["plan"]
    epochs = ", ".join(f"{name} {number:.2f}" for name, number in plan["epochs"].items())
    print(
        f"{plan['model']} ({plan['parameters']:,} parameters), {plan['objective']}, {plan['optimizer']} lr {plan['learning_rate']:g}, ",
        end="",
    )
    print(
        f"{plan['ranks']} ranks, ZeRO stage {plan['zero_stage']}, {plan['weights_dtype']}, global batch {plan['global_batch_size']:,} ",
        end="",
    )
    print(f"x {plan['sequence_length']} tokens, {plan['steps']:,} steps, epochs: {epochs}.\n")
    train = [line for line in lines if line["kind"] == "train"]
    every = max(1, len(train) // int(rows))
    table(train[::every] + ([train[-1]] if (len(train) - 1) % every else []), TRAIN, "training")
    table([line for line in lines if line["kind"] == "eval"], EVAL, "validation")
    print(
        f"Unigram frequencies on the same targets: {start['unigram_loss']:.4f} nats. Wall time {last(lines, 'end')['wall_seconds']:.0f} s."
    )


def table(lines: list[dict], columns: dict[str, str], title: str) -> None:
    names = [name for name in columns if any(line.get(name) is not None for line in lines)]
    print(f"| {title} step | " + " | ".join(names) + " |\n|" + "---|" * (len(names) + 1))
    for line in lines:
        print(f"| {line['step']} | " + " | ".join(format(line[name], columns[name]) for name in names) + " |")
    print()


if __name__ == "__main__":
    main(*sys.argv[1:])
