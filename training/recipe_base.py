"""The keys of a recipe that all methods share. A key's description is also its comment in the recipe file."""

from typing import Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field

# What a model ends in: next words, one score, or one number for each label of a classifier.
Head = Literal["causal-lm", "score", "labels"]
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


def learning_rate(lora: float, full: float) -> Any:
    """The field of a method whose best rates differ by what trains."""
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
    sharding: Literal["none", "fsdp", "zero2", "zero3"] = Field(
        default="none",
        description="what the processes' GPUs share instead of each holding it: weights, gradients and the optimiser's "
        "state (fsdp; zero3 by DeepSpeed), or the last two (zero2)",
    )
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
