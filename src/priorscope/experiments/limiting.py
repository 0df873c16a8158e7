"""The limiting dynamics of SGD for a network linear in its parameters: exact moments, long after the loss is low.

Mini-batches of b points, drawn with replacement, of the mean of ½(f − y)²; torch's momentum. With δ = θ − θ*, the
state s = (δ, v) moves by s ← A s + E u, where A is the step of the mean, u the gradient's noise, E = (−η, 1). So

    S ← A S Aᵀ + E N(S) Eᵀ,   N(S) = (1/b) (mean of φφᵀ E[(φᵀδ − e)²] − H E[δδᵀ] H),   H = mean of φφᵀ

for the second moment S, e the error of each point at the optimum. Its fixed point is the stationary covariance: a
Lyapunov equation whose noise depends on the solution itself. From it follow, exactly, how far the weights wander,
E‖θ_{t+k} − θ_t‖² = 2 tr(S − AᵏS), and how they oscillate, Cov(s_{t+k}, s_t) = AᵏS.

Source: Kunin et al. 2021 (2107.09133), in continuous time and with noise that does not depend on the weights.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Float
from scipy.linalg import solve_discrete_lyapunov
from torch import Tensor

from ..errors import NotCoveredError

ROUNDS, AGREE = 1000, 1e-13


@dataclass(frozen=True, eq=False)
class LinearSGD:
    """SGD on a network f(x) = φ(x)ᵀθ; states (δ, v) have q = 2p entries.

    Args:
        features: (n, p), φ at the points, of full column rank. y: (n,).
        batch: b, points of a mini-batch, drawn with replacement.
    """

    features: Float[Tensor, "n p"]
    y: Float[Tensor, " n"]
    learning_rate: float
    momentum: float
    batch: int

    @cached_property
    def optimum(self) -> Float[Tensor, " p"]:
        return torch.linalg.lstsq(self.features, self.y[:, None]).solution[:, 0]

    @cached_property
    def errors(self) -> Float[Tensor, " n"]:
        """y − f at the optimum."""
        return self.y - self.features @ self.optimum

    @cached_property
    def hessian(self) -> Float[Tensor, "p p"]:
        return self.features.T @ self.features / len(self.features)

    @cached_property
    def step(self) -> Float[Tensor, "q q"]:
        """A, the step of the mean: v ← βv + Hδ, δ ← δ − ηv."""
        eye, h = torch.eye(len(self.hessian)).to(self.hessian), self.hessian
        eta, beta = self.learning_rate, self.momentum
        top = torch.cat([eye - eta * h, -eta * beta * eye], 1)
        return torch.cat([top, torch.cat([h, beta * eye], 1)])

    def noise(self, second: Float[Tensor, "q q"] | None) -> Float[Tensor, "q q"]:
        """E N(S) Eᵀ around a state whose mean is 0; None for S = 0, noise that does not depend on the weights."""
        phi, p = self.features, len(self.hessian)
        spread = self.errors.square()
        lost = torch.zeros_like(self.hessian)
        if second is not None:
            around = second[:p, :p]
            spread = spread + ((phi @ around) * phi).sum(1)
            lost = self.hessian @ around @ self.hessian
        inner = (phi.T * spread @ phi / len(phi) - lost) / self.batch
        eye = torch.eye(p).to(phi)
        enters = torch.cat([-self.learning_rate * eye, eye])
        return enters @ inner @ enters.T

    def next(self, second: Float[Tensor, "q q"]) -> Float[Tensor, "q q"]:
        """The second moment a step later."""
        return self.step @ second @ self.step.T + self.noise(second)

    def stationary(self, constant: bool = False) -> Float[Tensor, "q q"]:
        """The stationary covariance of (δ, v).

        Args:
            constant: with the noise at the optimum, whatever the weights: the Lyapunov equation of the literature.

        Raises:
            NotCoveredError: a descent, or its second moment, that does not come to rest.
        """
        if not float(torch.linalg.eigvals(self.step).abs().max()) < 1:
            raise NotCoveredError("LinearSGD", "does not come to rest: its mean diverges", "Use a smaller rate")
        found = self._lyapunov(self.noise(None))
        if constant:
            return found
        for _ in range(ROUNDS):
            last, found = found, self._lyapunov(self.noise(found))
            gap = float((found - last).norm() / found.norm())
            if gap < AGREE:
                return found
        raise NotCoveredError("LinearSGD", "has a second moment that does not come to rest", "Use a smaller rate")

    def _lyapunov(self, noise: Float[Tensor, "q q"]) -> Float[Tensor, "q q"]:
        return torch.from_numpy(np.ascontiguousarray(solve_discrete_lyapunov(self.step.numpy(), noise.numpy())))

    def later(self, lag: int, second: Float[Tensor, "q q"]) -> Float[Tensor, "q q"]:
        """Cov(s_{t+k}, s_t) = AᵏS of the stationary process."""
        return torch.linalg.matrix_power(self.step, lag) @ second

    def wandered(self, lag: int, second: Float[Tensor, "q q"]) -> float:
        """E‖θ_{t+k} − θ_t‖² of the stationary process."""
        p = len(self.hessian)
        return 2 * float((second - self.later(lag, second))[:p, :p].trace())

    def chains(self, count: int, steps: int, seed: int, record: tuple[int, ...] = ()) -> Float[Tensor, "r c q"]:
        """`count` real descents side by side, from the optimum at rest: their states (δ, v) at the recorded steps."""
        generator = torch.Generator().manual_seed(seed)
        n, p = self.features.shape
        weights = self.optimum.expand(count, p).clone()
        velocity = torch.zeros_like(weights)
        kept = []
        for step in range(steps + 1):
            if step in record:
                kept.append(torch.cat([weights - self.optimum, velocity], 1))
            chosen = torch.randint(n, (count, self.batch), generator=generator)
            phi, y = self.features[chosen], self.y[chosen]
            errors = torch.einsum("cbp,cp->cb", phi, weights) - y
            velocity = self.momentum * velocity + torch.einsum("cbp,cb->cp", phi, errors) / self.batch
            weights = weights - self.learning_rate * velocity
        return torch.stack(kept)
