"""The last words of a run: how well it went and where everything is."""

from pretrain.metrics import last, read_metrics
from pretrain.run_folder import RunFolder
from pretrain.wandb_follower import upload_command


def summarise(folder: RunFolder) -> str:
    """A few lines from the run folder alone; the same for a run that has just ended and one that ended long ago."""
    lines = read_metrics(folder.metrics)
    start, final, end = last(lines, "start") or {}, last(lines, "eval") or {}, last(lines, "end") or {}
    rows = [("finished", f"{end.get('step', 0):,} steps, {end.get('samples', 0):,} samples, {_duration(end.get('wall_seconds', 0.0))}")]
    if end.get("skipped_steps"):
        rows.append(("skipped", f"{end['skipped_steps']:,} steps (not finite, or refused by train.spike_sigma)"))
    scores = ", ".join(f"{name} {final[name]:.4f}" for name in _SCORES if final.get(name) is not None)
    rows.append(("validation", scores))
    trained, unigram = final.get("mask_token_loss", final.get("loss")), start.get("unigram_loss")
    if trained is not None and unigram is not None:
        targets = "loss on [MASK] tokens" if "mask_token_loss" in final else "loss"
        verdict = "better" if trained < unigram else "worse"
        rows.append(
            ("learnt", f"{targets} {trained:.4f} nats; unigram frequencies give {unigram:.4f}: {abs(unigram - trained):.4f} {verdict}")
        )
    rows.append(("metrics", str(folder.metrics)))
    rows.append(("checkpoint", str(folder.latest_checkpoint())))
    if folder.export.exists():
        rows.append(("model", f"{folder.export} (Hugging Face format: AutoModel.from_pretrained, AutoTokenizer.from_pretrained)"))
    if (folder.path / "wandb").exists():
        rows.append(("curves", f"{folder.path / 'wandb'} (offline runs upload with: {upload_command(str(folder.path))})"))
    return "\n".join(f"{name:>10}  {text}" for name, text in rows)


_SCORES = ("loss", "mlm_loss", "mlm_accuracy", "mask_token_loss", "nsp_accuracy", "perplexity")


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"
