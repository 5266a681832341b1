"""Options of the two learning controllers; the fields that both have are described once."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from nas_engine.options import Options
from nas_engine.scores import Scoring

_LearningRate = Annotated[float, Field(gt=0, description="step size of Adam")]
_MaxGradNorm = Annotated[float, Field(gt=0, description="gradients are scaled down to this L2 norm")]
_Scores = Annotated[
    Scoring,
    Field(description="rewards as scores, relative to all rewards so far: rank (needs no scale), standardised, or raw"),
]
_EntropyWeight = Annotated[float, Field(ge=0, description="weight of the entropy bonus (nats a decision) in the loss")]
_EntropyFloor = Annotated[
    float,
    Field(
        ge=0,
        description="entropy, nats a decision, that an update leaves at least, by scaling logits down; 0: any",
    ),
]
_ImitationWeight = Annotated[float, Field(ge=0, description="weight of imitating the best known in the loss; 0: off")]
_ImitationSize = Annotated[int, Field(ge=1, description="number of best known architectures to imitate")]
_FreeSamples = Annotated[
    int, Field(ge=0, description="most known architectures, drawn again while proposing, that an update learns from")
]
_Replay = Annotated[
    int,
    Field(
        ge=0, description="most known architectures, a quarter of them the best, to learn path consistency from; 0: off"
    ),
]
_ReplaySteps = Annotated[int, Field(ge=1, description="gradient steps on path consistency an update")]
_ReplayScale = Annotated[
    float,
    Field(ge=1e-3, description="nats of log-probability that a deviation of score is worth in path consistency"),
]
_LikeliestOf = Annotated[
    tuple[Annotated[int, Field(ge=1)], ...],
    Field(min_length=1, description="unseen draws of which the likeliest is proposed, one number after the other"),
]
_Patience = Annotated[
    int,
    Field(
        ge=0,
        description="evaluations without a new best after which weights are fresh and the best is one of those that "
        "follow; 0: never",
    ),
]
_IncumbentBonus = Annotated[
    float,
    Field(
        ge=0,
        le=100,
        description="nats added, while proposing, to the logits of the choices of the best architecture since the last "
        "start; 0: off",
    ),
]
_InitialDesign = Annotated[
    int, Field(ge=0, description="uniformly random proposals at the start, and at each fresh start of patience")
]
_HiddenSize = Annotated[int, Field(ge=1, description="size of the LSTM state")]
_EmbeddingSize = Annotated[int, Field(ge=1, description="size of the LSTM's input embeddings")]
_Temperature = Annotated[float, Field(gt=0, description="logits are divided by it; above 1 explores more")]
_TanhConstant = Annotated[
    float, Field(ge=0, description="logits are squashed to (-c, c), which bounds certainty; 0: no bound")
]


class ReinforceOptions(Options):
    """Options of `nas_engine.controllers.reinforce.ReinforceController`."""

    learning_rate: _LearningRate = 0.02
    max_grad_norm: _MaxGradNorm = 0.5
    advantages: _Scores = "rank"
    baseline: Literal["leave_one_out", "ema"] = Field(
        "leave_one_out",
        description="subtracted from a score: the mean of the batch's other scores, or a moving average",
    )
    ema_decay: float = Field(0.9, ge=0, lt=1, description="share of its old value that the moving average keeps")
    entropy_weight: _EntropyWeight = 0.01
    entropy_floor: _EntropyFloor = 0.1
    self_imitation_weight: _ImitationWeight = 0.2
    self_imitation_size: _ImitationSize = 8
    free_samples: _FreeSamples = 0
    replay: _Replay = 0
    replay_steps: _ReplaySteps = 4
    replay_scale: _ReplayScale = 4.0
    likeliest_of: _LikeliestOf = (1,)
    patience: _Patience = 0
    incumbent_bonus: _IncumbentBonus = 0.0
    initial_design: _InitialDesign = 0
    hidden_size: _HiddenSize = 64
    embedding_size: _EmbeddingSize = 32
    temperature: _Temperature = 1.0
    tanh_constant: _TanhConstant = 0.0


class PPOOptions(Options):
    """Options of `nas_engine.controllers.ppo.PPOController`."""

    learning_rate: _LearningRate = 0.007
    max_grad_norm: _MaxGradNorm = 0.5
    advantages: _Scores = "rank"
    normalise_advantages: bool = Field(True, description="whether a batch's advantages get mean 0 and deviation 1")
    gamma: float = Field(1.0, ge=0, le=1, description="discount from one decision to the next")
    gae_lambda: float = Field(0.95, ge=0, le=1, description="GAE: 1 trusts the rewards, 0 the value head")
    epochs: int = Field(4, ge=1, description="passes over each batch")
    minibatches: int = Field(1, ge=1, description="gradient steps a pass")
    clip_coef: float = Field(0.2, gt=0, description="probability ratios are clipped to 1 - this .. 1 + this")
    target_kl: float = Field(
        0.075, ge=0, description="the passes end once the policy has moved this far, nats a decision; 0: never"
    )
    value_weight: float = Field(0.5, ge=0, description="weight of the value loss")
    entropy_weight: _EntropyWeight = 0.01
    entropy_floor: _EntropyFloor = 0.1
    self_imitation_weight: _ImitationWeight = 0.2
    self_imitation_size: _ImitationSize = 8
    free_samples: _FreeSamples = 0
    replay: _Replay = 0
    replay_steps: _ReplaySteps = 4
    replay_scale: _ReplayScale = 4.0
    likeliest_of: _LikeliestOf = (1,)
    patience: _Patience = 0
    incumbent_bonus: _IncumbentBonus = 0.0
    initial_design: _InitialDesign = 0
    hidden_size: _HiddenSize = 64
    embedding_size: _EmbeddingSize = 32
    temperature: _Temperature = 1.0
    tanh_constant: _TanhConstant = 0.0


LearnerOptions = ReinforceOptions | PPOOptions
