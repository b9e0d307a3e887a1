"""An adapter merged into full-precision weights of its base, and the proof that both answer alike."""

import gc
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from feedback import versions
from feedback.errors import UserError
from feedback.files import atomic_folder, content_hash, write_atomic
from feedback.workspace import Workspace
from training import adapters, agreement, finished, models
from training.agreement import Agreement
from training.runs import Run

MANIFEST, CARD = "veritune.json", "README.md"
# Mean KL in nats that rounding alone may make: merging rounds a sum to bf16's eight bits, the adapter's path does not.
TOLERANCE = {"fp32": 1e-5, "bf16": 1e-2}
# Mean KL, and share of other most probable tokens: beyond either, a model trained on 4 bits is called another one.
MOST_DRIFT = (1e-2, 0.02)

Report = Callable[[str], None]


@dataclass(frozen=True)
class Merged:
    """What is known of merged weights.

    Args:
        agreement: with the adapter on the base of the same precision; None where all weights were trained.
        drift: from the adapter on the 4-bit base it was trained on, where it was.
    """

    precision: str
    agreement: Agreement | None = None
    drift: Agreement | None = None


def merge(workspace: Workspace, run: Run, folder: Path, precision: str, card: str, report: Report) -> Merged:
    """Write a run's model as one set of weights; nothing is left where they don't answer as the adapter does.

    Args:
        folder: where to write; it must not exist.
        precision: of the merged weights; auto: that of the base's own.
        card: the model card that goes with them.

    Raises:
        UserError: the run has no model that answers, its base is another one now, or the merged weights are wrong.
    """
    run.require_answers()
    run.verify_weights()
    origin = run.manifest["model"]
    if models.model_hash(origin["name"]) != origin["hash"]:
        raise UserError(f"model {origin['name']}: no longer the one that {run.id} was trained on")
    source = str(run.weights) if run.tuning == "full" else origin["name"]
    if precision == "auto":
        precision = "bf16" if "bfloat16" in str(models.load_config(source).dtype) else "fp32"
    tokenizer = models.load_tokenizer(str(run.weights))
    with atomic_folder(folder) as staging:
        if run.tuning == "full":
            _save(models.load_base(source, precision), tokenizer, staging)
            merged = Merged(precision)
        else:
            merged = _merge_adapter(workspace, run, staging, tokenizer, precision, report)
        write_atomic(staging / CARD, card)
        write_atomic(staging / MANIFEST, json.dumps(provenance(run) | asdict(merged), indent=2) + "\n")
    return merged


def provenance(run: Run) -> dict[str, Any]:
    """What an exported folder says of where it is from, without this machine's paths."""
    origin = run.manifest["model"]
    return {
        "run_id": run.id,
        "weights": run.manifest["weights"],
        "base": {"name": models.short_name(origin["name"]), "hash": origin["hash"]},
        "dataset": run.manifest["dataset"],
    }


def cached(workspace: Workspace, run: Run, report: Report) -> Path:
    """The run's merged model in the workspace's cache, made where it is not there yet.

    Raises:
        UserError: as `merge`.
    """
    run.verify_weights()
    key = content_hash([run.manifest["model"]["hash"], run.manifest["weights"]])[:16]
    folder = workspace.cache / "merged" / key / run.id
    if not folder.is_dir():
        merge(workspace, run, folder, "auto", (run.folder / "MODEL_CARD.md").read_text(), report)
    return folder


def _merge_adapter(
    workspace: Workspace, run: Run, folder: Path, tokenizer: Any, precision: str, report: Report
) -> Merged:
    origin = run.manifest["model"]["name"]
    version = versions.load(workspace, run.manifest["dataset"]["id"])
    rows = agreement.probes(version, tokenizer, run.manifest["recipe"]["max_length"])
    if not rows:
        raise UserError(f"run {run.id}: {version.id} has no prompt short enough to compare merged and adapter on")

    def said(model: Any) -> Any:
        return agreement.log_probabilities(model.eval(), rows)

    trained = None
    if run.recipe.quantize == "nf4":
        report(f"asking {run.id} on the 4-bit base that it was trained on")
        trained = said(finished.load(run)[0])
    report(f"merging {run.id} into {models.short_name(origin)} in {precision}")
    # Freshly loaded and never in 4 bits: merging into those rounds the adapter away, or gives garbage.
    adapted = adapters.load_adapter(models.load_base(origin, precision), run.weights)
    with_adapter = said(adapted)
    _save(adapted.merge_and_unload(safe_merge=True), tokenizer, folder)
    del adapted
    gc.collect()
    # As it was written, so that what saving does to it is seen too.
    merged = said(models.load_base(str(folder), precision))
    found = agreement.compare(with_adapter, merged)
    report(f"merged against adapter: {found}")
    if not found.kl <= TOLERANCE[precision]:
        raise UserError(
            f"run {run.id}: merged, it does not answer as its adapter does ({found}; at most "
            f"{TOLERANCE[precision]:g} nats are rounding); nothing was kept: export the adapter instead"
        )
    drift = agreement.compare(trained, merged) if trained is not None else None
    if drift is not None:
        report(f"merged in {precision} against trained on 4 bits: {drift}")
        if drift.kl > MOST_DRIFT[0] or drift.changed > MOST_DRIFT[1]:
            report(
                f"warning: the merged model is not quite the one that was trained; `veritune eval {run.id} --merged` "
                "measures it"
            )
    return Merged(precision, found, drift)


def _save(model: Any, tokenizer: Any, folder: Path) -> None:
    """Write a model that ends its answers with the tokenizer's EOS, whatever its base ended them with."""
    brought = model.generation_config.eos_token_id
    listed = brought if isinstance(brought, list) else [brought]
    ends = dict.fromkeys(token for token in [tokenizer.eos_token_id, *listed] if token is not None)
    model.generation_config.eos_token_id = list(ends)
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    model.save_pretrained(str(folder))
    tokenizer.save_pretrained(str(folder))
