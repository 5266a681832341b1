"""The policy network: one LSTM that takes the decisions of an architecture in order, each under its mask."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from nas_engine.spaces.diagram import DecisionDiagram


@dataclass(frozen=True)
class Rollout:
    """Gene sequences and what the policy says about them.

    Attributes:
        genes: int64 [n, decisions].
        log_probs: log-probability of each gene given the genes before it, [n, decisions].
        entropies: entropy of each decision's distribution in nats, [n, decisions].
        open: bool [n, decisions]; whether the decision had more than one choice. Where it had not, log-probability
            and entropy are 0.
        values: predicted return before each decision, [n, decisions].
    """

    genes: Tensor
    log_probs: Tensor
    entropies: Tensor
    open: Tensor
    values: Tensor

    def __getitem__(self, chosen: slice | Tensor) -> Rollout:
        """The sequences at the positions `chosen`."""
        return Rollout(
            self.genes[chosen], self.log_probs[chosen], self.entropies[chosen], self.open[chosen], self.values[chosen]
        )

    @property
    def mean_entropy(self) -> Tensor:
        """Nats a decision, over the decisions that had more than one choice."""
        return self.entropies.sum() / self.open.sum().clamp(min=1)


class LSTMPolicy(nn.Module):
    """Autoregressive policy over the decisions of a space (Zoph & Le 2017, section 3.1; Pham et al. 2018).

    The input at decision t is the embedding of the gene chosen at t - 1 plus an embedding of decision t; the output
    layers are the decision's own. Choices that no valid architecture continues with have probability exactly 0.
    The output layers start small (orthogonal, gain 0.01): the first distributions are uniform over the open choices
    to within about 1 %.
    """

    transitions: Tensor
    fixed_masks: Tensor | None

    def __init__(
        self,
        diagram: DecisionDiagram,
        embedding_size: int = 32,
        hidden_size: int = 64,
        temperature: float = 1.0,
        tanh_constant: float = 0.0,
    ) -> None:
        """Build the network; weights come from torch's global generator.

        Args:
            diagram: the valid gene sequences.
            embedding_size: size of the input embeddings.
            hidden_size: size of the LSTM state.
            temperature: logits are divided by it.
            tanh_constant: logits are squashed to (-c, c) by c * tanh(logits / c) as in Bello et al. 2017, "Neural
                optimizer search", section 4.1, which bounds how certain the policy can become; 0 for no bound.
        """
        super().__init__()
        self.temperature, self.tanh_constant = temperature, tanh_constant
        decisions, most_choices = len(diagram.choices), diagram.transitions.shape[1]
        self.register_buffer("transitions", torch.from_numpy(diagram.transitions).long(), persistent=False)
        self.register_buffer("fixed_masks", self._masks_of_all(decisions), persistent=False)
        # Row 0 is "nothing chosen yet"; after it, one row for each choice of each decision.
        self.choice_embedding = nn.Embedding(1 + decisions * most_choices, embedding_size)
        self.decision_embedding = nn.Parameter(0.1 * torch.randn(decisions, embedding_size))
        self.lstm = nn.LSTM(embedding_size, hidden_size, batch_first=True)
        self.logit_weight = nn.Parameter(torch.empty(decisions, hidden_size, most_choices))
        self.logit_bias = nn.Parameter(torch.zeros(decisions, most_choices))
        self.value_head = nn.Linear(hidden_size, 1)
        for weight in [*self.logit_weight, self.value_head.weight]:
            nn.init.orthogonal_(weight, gain=0.01)
        nn.init.zeros_(self.value_head.bias)

    @torch.no_grad()
    def sample(self, n: int, generator: torch.Generator, bonus: Tensor | None = None) -> Tensor:
        """Genes int64 [n, decisions] of `n` valid architectures, drawn in step with `generator`.

        Args:
            n: how many.
            generator: of the draws.
            bonus: added to the logits of all draws, [decisions, choices]; None: nothing.
        """
        decisions, most_choices = self.logit_bias.shape
        genes = torch.empty(n, decisions, dtype=torch.long)
        state, inputs = torch.zeros(n, dtype=torch.long), torch.zeros(n, dtype=torch.long)
        hidden = memory = torch.zeros(n, self.lstm.hidden_size)
        input_weights, state_weights, input_bias, state_bias = self.lstm.all_weights[0]
        for decision in range(decisions):
            embedded = self.choice_embedding(inputs) + self.decision_embedding[decision]
            hidden, memory = torch.lstm_cell(
                embedded, (hidden, memory), input_weights, state_weights, input_bias, state_bias
            )
            logits = hidden @ self.logit_weight[decision] + self.logit_bias[decision]
            log_probs = self._log_probs(logits, self.transitions[state] >= 0)
            if bonus is not None:
                log_probs = torch.log_softmax(log_probs + bonus[decision], dim=-1)
            genes[:, decision] = torch.multinomial(log_probs.exp(), 1, generator=generator)[:, 0]
            state = self.transitions[state, genes[:, decision]]
            inputs = 1 + decision * most_choices + genes[:, decision]
        return genes

    def evaluate(self, genes: Tensor) -> Rollout:
        """What the policy says about `genes` (int64 [n, decisions], valid), differentiable in its weights."""
        decisions, most_choices = self.logit_bias.shape
        chosen = 1 + torch.arange(decisions) * most_choices + genes
        inputs = torch.cat([torch.zeros_like(chosen[:, :1]), chosen[:, :-1]], dim=1)
        hidden, _ = self.lstm(self.choice_embedding(inputs) + self.decision_embedding)
        logits = torch.einsum("ndh,dhc->ndc", hidden, self.logit_weight) + self.logit_bias
        masks = self._masks(genes)
        log_probs = self._log_probs(logits, masks)
        return Rollout(
            genes=genes,
            log_probs=log_probs.gather(2, genes[:, :, None])[:, :, 0],
            entropies=-(log_probs.exp() * log_probs).sum(dim=2),
            open=masks.sum(dim=2) > 1,
            values=self.value_head(hidden)[:, :, 0],
        )

    @torch.no_grad()
    def scale_logits(self, factor: float) -> None:
        """Multiply all logits, before temperature and squashing, by `factor`; below 1 it raises the entropy."""
        self.logit_weight.mul_(factor)
        self.logit_bias.mul_(factor)

    def _masks_of_all(self, decisions: int) -> Tensor | None:
        """Bool [decisions, choices] where what is open does not depend on the choices before, else None."""
        states, masks = torch.zeros(1, dtype=torch.long), []
        for _ in range(decisions):
            following = self.transitions[states]
            rows = torch.unique(following >= 0, dim=0)
            if len(rows) > 1:
                return None
            masks.append(rows[0])
            states = torch.unique(following[following >= 0])
        return torch.stack(masks)

    def _masks(self, genes: Tensor) -> Tensor:
        if self.fixed_masks is not None:
            return self.fixed_masks.expand(len(genes), -1, -1)
        state, masks = torch.zeros(len(genes), dtype=torch.long), []
        for decision in range(genes.shape[1]):
            following = self.transitions[state]
            masks.append(following >= 0)
            state = following.gather(1, genes[:, decision : decision + 1])[:, 0]
        return torch.stack(masks, dim=1)

    def _log_probs(self, logits: Tensor, mask: Tensor) -> Tensor:
        logits = logits / self.temperature
        if self.tanh_constant:
            logits = self.tanh_constant * torch.tanh(logits / self.tanh_constant)
        # A finite stand-in for -inf: its probability is exactly 0 in float32, and 0 * log 0 is 0 rather than NaN.
        return torch.log_softmax(logits.masked_fill(~mask, -1e9), dim=-1)
