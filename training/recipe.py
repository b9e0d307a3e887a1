"""What a run of each method can be told, besides what all share. Descriptions are also the recipe files' comments."""

from typing import ClassVar, Literal

from pydantic import Field, ValidationInfo, field_validator

from training.recipe_base import Head, Recipe, learning_rate

SOFT_LABELS = "let each pair's probability be its label; false: take every label as certain"
REWARD = (
    "what scores the answers: a finished reward run, or module:function, a Python function of conversations and "
    "answers that returns numbers"
)
# What a row of a classifier's file can hold.
Column = Literal["text", "context", "question", "answer", "label"]


class SFTRecipe(Recipe):
    """Supervised fine-tuning on demonstrations (InstructGPT, arXiv 2203.02155, section 3.5), loss on answers only."""

    method: Literal["sft"] = Field(default="sft", description="supervised fine-tuning")
    learning_rate: float = learning_rate(lora=2e-4, full=2e-5)
    examples: Literal["demonstrations", "chosen", "both"] = Field(
        default="demonstrations", description="what to imitate: demonstrations, the pairs' chosen answers, or both"
    )
    packing: bool = Field(
        default=False,
        description="fill rows of max_length tokens with examples that don't see each other; it pays on a GPU",
    )
    probe: int | None = Field(
        default=None,
        ge=0,
        description="how many facts of the demonstrations the model is asked before it is taught them, to warn of "
        "those that it doesn't know (arXiv 2405.05904); 0: none; default: 64 on a GPU, else none",
    )


class DPORecipe(Recipe):
    """Direct preference optimisation on pairs (arXiv 2305.18290, equation 7)."""

    method: Literal["dpo"] = Field(default="dpo", description="direct preference optimisation")
    learning_rate: float = learning_rate(lora=5e-5, full=1e-6)
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
    learning_rate: float = learning_rate(lora=5e-5, full=1e-6)
    batch_size: int = Field(default=8, ge=2, description="answers in one forward pass on one device")
    beta: float = Field(default=0.1, gt=0, description="how strongly the policy is held to its reference")
    desirable_weight: float = Field(default=1.0, gt=0, description="what a chosen answer counts")
    undesirable_weight: float = Field(default=1.0, gt=0, description="what a rejected answer counts")


class ORPORecipe(Recipe):
    """Odds ratio preference optimisation on pairs, without a reference (arXiv 2403.07691)."""

    method: Literal["orpo"] = Field(default="orpo", description="odds ratio preference optimisation")
    learning_rate: float = learning_rate(lora=5e-5, full=5e-6)
    odds_weight: float = Field(default=0.1, gt=0, description="weight of the odds ratio's loss (lambda)")


class RewardRecipe(Recipe):
    """Reward model on pairs (Bradley-Terry; InstructGPT, arXiv 2203.02155, equation 1)."""

    head: ClassVar[Head] = "score"
    method: Literal["reward"] = Field(default="reward", description="a score for an answer, from pairs")
    learning_rate: float = learning_rate(lora=1e-4, full=1e-5)
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
    learning_rate: float = learning_rate(lora=2e-4, full=3e-5)
    epochs: float = Field(default=3.0, gt=0, description="passes over the training split")


class PPORecipe(Recipe):
    """Proximal policy optimisation against a reward (arXiv 1707.06347; InstructGPT, arXiv 2203.02155, equation 2)."""

    method: Literal["ppo"] = Field(default="ppo", description="proximal policy optimisation")
    tuning: Literal["lora"] = Field(default="lora", description="what trains: adapters, since all roles share one base")
    sharding: Literal["none"] = Field(default="none", description="not in PPO")
    gradual_unfreezing: Literal[False] = Field(default=False, description="not in PPO")
    reward: str = Field(description=REWARD)
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


class GRPORecipe(Recipe):
    """Group relative policy optimisation: answers to a prompt measured against each other (arXiv 2402.03300)."""

    method: Literal["grpo"] = Field(default="grpo", description="group relative policy optimisation")
    tuning: Literal["lora"] = Field(default="lora", description="what trains: an adapter, off which is the reference")
    processes: Literal[1] = Field(default=1, description="one, so far")
    nodes: Literal[1] = Field(default=1, description="one, so far")
    sharding: Literal["none"] = Field(default="none", description="not in GRPO")
    gradual_unfreezing: Literal[False] = Field(default=False, description="not in GRPO")
    reward: str = Field(description=REWARD)
    learning_rate: float = Field(default=5e-5, gt=0, description="peak learning rate of AdamW")
    batch_size: int = Field(default=8, ge=2, description="answers in one forward pass, a multiple of generations")
    generations: int = Field(default=8, ge=2, validate_default=True, description="answers sampled to each prompt")
    max_new_tokens: int = Field(default=128, ge=1, description="tokens after which an answer is cut")
    temperature: float = Field(default=1.0, gt=0, le=2, description="of sampling, and of all log-probabilities")
    beta: float = Field(default=0.04, ge=0, description="weight of the KL to the reference; 0: without a reference")
    clip: float = Field(default=0.2, gt=0, lt=1, description="epsilon of the clipped policy ratio")
    loss: Literal["grpo", "dr_grpo", "dapo", "bnpo"] = Field(
        default="grpo", description="how tokens are averaged: TRL's loss_type, of which grpo is the paper's"
    )

    @field_validator("generations")
    @classmethod
    def _whole_groups(cls, value: int, info: ValidationInfo) -> int:
        if (rows := info.data.get("batch_size", value)) % value:
            raise ValueError(f"batch_size={rows} is no multiple of it")
        return value

    @property
    def rows_per_step(self) -> int:
        return self.batch_size * self.gradient_accumulation // self.generations

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
    "grpo": GRPORecipe,
}
