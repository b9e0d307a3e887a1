"""What a run can be told. A key's description here is also its comment in the recipe file."""

from typing import Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator

# What a model ends in: next words, one score, or one number for each label of a classifier.
Head = Literal["causal-lm", "score", "labels"]
SOFT_LABELS = "let each pair's probability be its label; false: take every label as certain"
# What a row of a classifier's file can hold.
Column = Literal["text", "context", "question", "answer", "label"]
PRESETS = ("attention-minimal", "attention", "all-linear")


class Keys(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Lora(Keys):
    r: int = Field(default=16, ge=1, le=1024, description="rank of the update (LoRA, arXiv 2106.09685)")
    alpha: float = Field(default=32, gt=0, description="the update is scaled by alpha / r")
    dropout: float = Field(default=0.0, ge=0, lt=1, description="dropout on the adapter's input")
    dora: bool = Field(
        default=False, description="train each weight's length apart from its direction (DoRA, arXiv 2402.09353)"
    )
    rslora: bool = Field(
        default=False, description="scale by alpha / sqrt(r), which keeps large ranks learning (arXiv 2312.03732)"
    )
    targets: Literal["attention-minimal", "attention", "all-linear"] | list[str] = Field(
        default="all-linear",
        description="attention-minimal (q, v), attention (q, v, o), all-linear (q, k, v, o, gate, up, down), or a list "
        "of module names",
    )


def _learning_rate(lora: float, full: float) -> Any:
    return Field(
        default_factory=lambda found: full if found.get("tuning") == "full" else lora,
        gt=0,
        description=f"peak learning rate of AdamW; default: {lora:g}, with tuning=full {full:g}",
    )


class Recipe(Keys):
    """The keys that all methods share."""

    head: ClassVar[Head] = "causal-lm"
    method: str
    model: str | None = Field(
        default=None, description="base model: a folder or hub name; default: the parent's, else veritune.toml's"
    )
    dataset: str = Field(description="NAME for its latest version, or NAME@vN")
    parent: str | None = Field(
        default=None,
        description="a finished run to go on from: its adapter is trained on (with tuning=full: merged first), or its "
        "full weights become the base",
    )
    tuning: Literal["lora", "full"] = Field(
        default="lora", description="what trains: a LoRA adapter on the frozen base, or all weights"
    )
    processes: int = Field(
        default=1, ge=1, le=64, description="processes on each host, one a GPU; batch_size is that of each"
    )
    nodes: int = Field(default=1, ge=1, le=64, description="hosts that train together, on one workspace folder")
    seed: int = Field(default=0, ge=0, description="of initialisation, data order and dropout")
    learning_rate: float = Field(gt=0, description="peak learning rate of AdamW")
    weight_decay: float = Field(default=0.01, ge=0, description="AdamW's decoupled weight decay")
    schedule: Literal["linear", "cosine", "constant", "slanted-triangular"] = Field(
        default="linear",
        description="the fall from the peak rate; slanted-triangular is ULMFiT's (arXiv 1801.06146)",
    )
    warmup: float = Field(
        default=0.05, ge=0, lt=1, description="share of steps in which the rate rises (slanted-triangular: cut_frac)"
    )
    cut_frac: float = Field(
        default=0.1, gt=0, lt=1, description="share of steps in which slanted-triangular rises (equation 3)"
    )
    ratio: float = Field(
        default=32, ge=1, description="how much smaller slanted-triangular's lowest rate is than its peak (equation 3)"
    )
    discriminative: float = Field(
        default=1.0,
        ge=1,
        description="each layer's rate is that of the layer above divided by this; 1: all alike. ULMFiT, of 4 layers, "
        "takes 2.6 (section 3.2), which leaves nothing to the lowest of many: try 1.1",
    )
    gradual_unfreezing: bool = Field(
        default=False,
        description="train the topmost layer alone in the first epoch, one more from the top in each later epoch "
        "(ULMFiT, section 3.3)",
    )
    epochs: float = Field(default=1.0, gt=0, description="passes over the training split")
    max_steps: int | None = Field(
        default=None, ge=1, description="stop after so many optimiser steps, whatever epochs says"
    )
    batch_size: int = Field(default=8, ge=1, description="rows in one forward pass on one device")
    gradient_accumulation: int = Field(default=1, ge=1, description="forward passes in one optimiser step")
    gradient_checkpointing: bool = Field(default=False, description="less memory for about a third more time")
    max_length: int | None = Field(
        default=None, ge=8, description="tokens in one row; default: the model's context, at most 1024"
    )
    precision: Literal["auto", "fp32", "bf16"] = Field(
        default="auto",
        description="of the frozen base, of computing with 4-bit weights, or of the forward pass with tuning=full; "
        "auto: bf16 on a GPU that has it, else fp32; what trains is kept in fp32",
    )
    quantize: Literal["none", "nf4"] | None = Field(
        default=None,
        description="nf4: the frozen base in 4 bits, for less memory (QLoRA, arXiv 2305.14314); default: the parent's, "
        "else none",
    )
    optimizer: Literal["adamw", "adamw-8bit", "paged-adamw", "paged-adamw-8bit"] = Field(
        default="adamw",
        description="8bit: its two moments in 8 bits (arXiv 2110.02861); paged: they move to the CPU's memory when the "
        "GPU's is full",
    )
    backend: Literal["auto", "trl", "liger", "unsloth"] = Field(
        default="auto", description="whose kernels; auto: unsloth or liger on a GPU where they are installed, else trl"
    )
    lora: Lora = Field(default=Lora(), description="the adapter; to go on with a parent's it must be the parent's")
    chat_template: str | None = Field(
        default=None,
        description="for a tokenizer without one: plain, chatml, or a Jinja file; default: the tokenizer's",
    )
    pad_token: str | None = Field(default=None, description="an existing token to pad with, other than the EOS")
    eos_token: str | None = Field(default=None, description="the token that ends an answer; default: the tokenizer's")
    checkpoint_every: int = Field(
        default=100, ge=1, description="optimiser steps between checkpoints (the last 2 stay)"
    )
    log_every: int = Field(default=5, ge=1, description="optimiser steps between lines of metrics.jsonl")
    validate_every: int | None = Field(
        default=None, ge=1, description="optimiser steps between losses on the validation split; default: once an epoch"
    )
    early_stopping: int | None = Field(
        default=None,
        ge=1,
        description="end after so many validations without a lower loss on the validation split (ppo, grpo: a higher "
        "mean reward), and take the best checkpoint",
    )
    tracker: Literal["none", "wandb", "trackio", "tensorboard"] = Field(
        default="none", description="where metrics go besides metrics.jsonl"
    )

    @property
    def rows_per_step(self) -> int:
        """Of the training split, in one process."""
        return self.batch_size * self.gradient_accumulation

    @property
    def sampled_tokens(self) -> int:
        """Of a row, those that training samples itself."""
        return 0


class SFTRecipe(Recipe):
    """Supervised fine-tuning on demonstrations (InstructGPT, arXiv 2203.02155, section 3.5), loss on answers only."""

    method: Literal["sft"] = Field(default="sft", description="supervised fine-tuning")
    learning_rate: float = _learning_rate(lora=2e-4, full=2e-5)
    examples: Literal["demonstrations", "chosen", "both"] = Field(
        default="demonstrations", description="what to imitate: demonstrations, the pairs' chosen answers, or both"
    )
    packing: bool = Field(
        default=False,
        description="fill rows of max_length tokens with examples that don't see each other; it pays on a GPU",
    )


class DPORecipe(Recipe):
    """Direct preference optimisation on pairs (arXiv 2305.18290, equation 7)."""

    method: Literal["dpo"] = Field(default="dpo", description="direct preference optimisation")
    learning_rate: float = _learning_rate(lora=5e-5, full=1e-6)
    beta: float = Field(default=0.1, gt=0, description="how strongly the policy is held to its reference")
    loss: Literal[
        "sigmoid",
        "sigmoid_norm",
        "hinge",
        "ipo",
        "robust",
        "exo_pair",
        "nca_pair",
        "bco_pair",
        "sppo_hard",
        "aot",
        "aot_unpaired",
        "apo_zero",
        "apo_down",
        "discopop",
    ] = Field(
        default="sigmoid",
        description="sigmoid (DPO), sigmoid_norm (by length), hinge, ipo, robust, exo_pair, nca_pair, bco_pair, "
        "sppo_hard, aot, aot_unpaired, apo_zero, apo_down or discopop; training/losses.py names the papers",
    )
    label_smoothing: float = Field(
        default=0.0,
        ge=0,
        lt=0.5,
        validate_default=True,
        description="share of labels taken to be wrong, by robust (e.g. 0.1), exo_pair (1e-3), aot and aot_unpaired",
    )
    soft_labels: bool = Field(default=True, validate_default=True, description=SOFT_LABELS)
    sft_weight: float = Field(
        default=0.0,
        ge=0,
        description="weight of the chosen answers' SFT loss, which keeps their probability from falling",
    )

    @field_validator("label_smoothing")
    @classmethod
    def _smoothing_of_a_loss_that_has_it(cls, value: float, info: ValidationInfo) -> float:
        loss = info.data.get("loss")
        if value and loss not in (None, "robust", "exo_pair", "aot", "aot_unpaired"):
            raise ValueError(f"loss={loss} has none; it takes each pair's own probability")
        if not value and loss == "exo_pair":
            raise ValueError("loss=exo_pair needs some, e.g. 1e-3")
        return value

    @field_validator("soft_labels")
    @classmethod
    def _no_soft_labels_where_pairs_are_sorted(cls, value: bool, info: ValidationInfo) -> bool:
        loss = info.data.get("loss")
        if value and loss in ("aot", "aot_unpaired"):
            raise ValueError(f"loss={loss} compares batches and not pairs; set soft_labels=false")
        return value


class KTORecipe(Recipe):
    """Kahneman-Tversky optimisation of single answers, good or bad (arXiv 2402.01306); lora.dropout is off."""

    method: Literal["kto"] = Field(default="kto", description="Kahneman-Tversky optimisation")
    learning_rate: float = _learning_rate(lora=5e-5, full=1e-6)
    batch_size: int = Field(default=8, ge=2, description="answers in one forward pass on one device")
    beta: float = Field(default=0.1, gt=0, description="how strongly the policy is held to its reference")
    desirable_weight: float = Field(default=1.0, gt=0, description="what a chosen answer counts")
    undesirable_weight: float = Field(default=1.0, gt=0, description="what a rejected answer counts")


class ORPORecipe(Recipe):
    """Odds ratio preference optimisation on pairs, without a reference (arXiv 2403.07691)."""

    method: Literal["orpo"] = Field(default="orpo", description="odds ratio preference optimisation")
    learning_rate: float = _learning_rate(lora=5e-5, full=5e-6)
    odds_weight: float = Field(default=0.1, gt=0, description="weight of the odds ratio's loss (lambda)")


class RewardRecipe(Recipe):
    """Reward model on pairs (Bradley-Terry; InstructGPT, arXiv 2203.02155, equation 1)."""

    head: ClassVar[Head] = "score"
    method: Literal["reward"] = Field(default="reward", description="a score for an answer, from pairs")
    learning_rate: float = _learning_rate(lora=1e-4, full=1e-5)
    batch_size: int = Field(default=8, ge=1, description="prompts in one forward pass, each with all its answers")
    soft_labels: bool = Field(default=True, description=SOFT_LABELS)
    margin: float = Field(
        default=0.0,
        ge=0,
        description="by how much the preferred answer must win where the label is certain (arXiv 2307.09288, eq. 2)",
    )
    centring: float = Field(
        default=0.0, ge=0, description="pull of the scores' mean to zero, e.g. 0.01 (arXiv 2312.09244, equation 2)"
    )


class ClassifierRecipe(Recipe):
    """Classifier of answers or texts, by a head on the whole model (BERT, arXiv 1810.04805, section 3.2)."""

    head: ClassVar[Head] = "labels"
    method: Literal["classifier"] = Field(default="classifier", description="a label for an answer or a text")
    dataset: str = Field(
        description="NAME or NAME@vN, whose pairs' answers are labelled chosen and rejected; or a file (.jsonl, .csv, "
        ".parquet) of {text, label} or {context, question, answer, label}, the context being optional"
    )
    columns: dict[Column, str] = Field(
        default={}, description="the file's own names for these, where they differ, e.g. columns.label=hallucinated"
    )
    tuning: Literal["lora", "full"] = Field(
        default="full", description="what trains besides the head: a LoRA adapter on the frozen base, or all weights"
    )
    learning_rate: float = _learning_rate(lora=2e-4, full=3e-5)
    epochs: float = Field(default=3.0, gt=0, description="passes over the training split")


class PPORecipe(Recipe):
    """Proximal policy optimisation against a reward (arXiv 1707.06347; InstructGPT, arXiv 2203.02155, equation 2)."""

    method: Literal["ppo"] = Field(default="ppo", description="proximal policy optimisation")
    tuning: Literal["lora"] = Field(default="lora", description="what trains: adapters, since all roles share one base")
    gradual_unfreezing: Literal[False] = Field(default=False, description="not in PPO")
    reward: str = Field(
        description="what scores the answers: a finished reward run, or module:function, a Python function of "
        "conversations and answers that returns numbers"
    )
    learning_rate: float = Field(default=5e-5, gt=0, description="peak learning rate of AdamW")
    rollouts: int = Field(default=64, ge=2, description="answers sampled in one step and process, each to a prompt")
    max_new_tokens: int = Field(default=128, ge=1, description="tokens after which an answer is cut")
    temperature: float = Field(default=1.0, gt=0, le=2, description="of sampling, and of all log-probabilities")
    ppo_epochs: int = Field(
        default=4,
        ge=1,
        description="passes over one step's answers, an update for each batch_size x gradient_accumulation of them",
    )
    clip: float = Field(default=0.2, gt=0, lt=1, description="epsilon of the clipped policy ratio (PPO, equation 7)")
    value_clip: float = Field(default=0.2, gt=0, description="how far values may move from what they were")
    gamma: float = Field(default=1.0, gt=0, le=1, description="discount of later rewards")
    lam: float = Field(
        default=0.95, ge=0, le=1, description="lambda of generalised advantage estimation (arXiv 1506.02438)"
    )
    kl_coefficient: float = Field(
        default=0.1, ge=0, description="penalty on each token's log-ratio to the reference (beta), at the start"
    )
    kl_target: float | None = Field(
        default=6.0,
        gt=0,
        description="nats an answer that the penalty is adapted towards (arXiv 1909.08593, section 2.2); null: stays",
    )
    kl_horizon: float = Field(
        default=10_000, gt=0, description="answers in which the penalty changes by a fifth at the most"
    )
    update_kl_limit: float = Field(
        default=0.1, gt=0, description="nats a token that the policy may move in one step; it then samples anew"
    )
    scale_scores: bool = Field(
        default=True, description="shift and scale scores to mean 0 and deviation 1 on the first step's answers"
    )
    whiten_rewards: bool = Field(
        default=False, description="scale each step's rewards, penalty included, to deviation 1"
    )
    missing_eos_penalty: float = Field(
        default=1.0, ge=0, description="taken from the scaled score of an answer that was cut before its end"
    )
    ptx_weight: float = Field(
        default=0.0,
        ge=0,
        description="weight of the loss on the parent's demonstrations (InstructGPT, equation 2, gamma)",
    )

    checkpoint_every: int = Field(default=10, ge=1, description="steps between checkpoints (the last 2 stay)")
    log_every: int = Field(default=1, ge=1, description="steps between lines of metrics.jsonl")

    @property
    def rows_per_step(self) -> int:
        return self.rollouts

    @property
    def sampled_tokens(self) -> int:
        return self.max_new_tokens


METHODS: dict[str, type[Recipe]] = {
    "sft": SFTRecipe,
    "reward": RewardRecipe,
    "dpo": DPORecipe,
    "ppo": PPORecipe,
    "classifier": ClassifierRecipe,
    "kto": KTORecipe,
    "orpo": ORPORecipe,
}
