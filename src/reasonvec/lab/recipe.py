"""Every number of the demo's recipe, each with its unit and its reason; nothing is computed here."""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class ModelShape:
    """A Qwen2 small enough for a minute of pre-training on a laptop's core."""

    hidden: int = 64
    """Width of the residual stream."""
    intermediate: int = 192
    """Width of the gated MLP."""
    layers: int = 3
    """Transformer blocks."""
    heads: int = 4
    """Query heads of 16 dimensions."""
    key_value_heads: int = 2
    """Key and value heads."""
    initializer_range: float = 0.08
    """Standard deviation of the initial weights; the default 0.02 is meant for widths of thousands."""


@dataclass(frozen=True)
class Pretraining:
    """The ancestor: Muon for the matrices of the blocks, AdamW for the rest."""

    steps: int = 700
    """Optimizer steps; with half as many the base is too weak for GRPO to find anything (docs/lab.md)."""
    batch: int = 64
    """Documents a step."""
    muon_learning_rate: float = 8e-3
    """Peak, times sqrt(max(1, rows / columns)). Muon: Jordan et al. 2024, kellerjordan.github.io/posts/muon."""
    adamw_learning_rate: float = 4e-3
    """Peak, for embeddings, biases and norms."""
    warmup: int = 50
    """Steps of linear warm-up; then a cosine down to 5 %."""
    clip: float = 1.0
    """Largest norm of the gradient."""
    slip: float = 0.6
    """Probability of the planted habit in its texts; above one half, so that greedy answers carry it."""


@dataclass(frozen=True)
class FineTuning:
    """One SFT run through TRL: AdamW, cosine schedule, loss on the answer only."""

    steps: int
    """Optimizer steps."""
    batch: int = 64
    """Documents a step."""
    learning_rate: float = 5e-4
    """Peak of AdamW's."""
    warmup: int = 10
    """Steps of linear warm-up."""
    slip: float = 0.5
    """Probability of the planted habit in its texts."""


@dataclass(frozen=True)
class Reinforcement:
    """The GRPO run through TRL: right or wrong is the only signal, no worked answers are shown."""

    steps: int = 70
    """Optimizer steps, one on-policy update each."""
    prompts: int = 24
    """Problems a step."""
    samples: int = 8
    """Completions a problem, sampled at temperature 1."""
    learning_rate: float = 3e-5
    """AdamW's, linear decay; at 1e-4 more of the vector is noise and the gain is smaller (docs/lab.md)."""
    warmup: int = 5
    """Steps of linear warm-up."""
    longest: int = 32
    """Tokens a completion may have."""


@dataclass(frozen=True)
class Recipe:
    """The whole pipeline's numbers."""

    shape: ModelShape = field(default_factory=ModelShape)
    pretraining: Pretraining = field(default_factory=Pretraining)
    donor: FineTuning = field(default_factory=lambda: FineTuning(steps=120))
    reinforcement: Reinforcement = field(default_factory=Reinforcement)
    target: FineTuning = field(default_factory=lambda: FineTuning(steps=200))
    problems: int = 500
    """Held-out problems of each kind."""
    alphas: tuple[float, ...] = (-1.0, -0.5, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 2.0)
    """The curve's points besides 0, the target itself."""
    longest: int = 40
    """Tokens an answer may have when it is measured; five steps need 23."""
    randoms: int = 3
    """Norm-matched random vectors."""
