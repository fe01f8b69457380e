"""A diffusion model of points in 16 dimensions, small enough to train, unlearn and attack in
seconds.
"""

from contextlib import contextmanager

import torch
from torch import Tensor
from torch.nn import functional as F

from unlearn_app.models.conditioning import Conditioning
from unlearn_app.models.parameterization import Epsilon
from unlearn_app.models.protocols import MetaBatch, NoisyBatch, Params

DIM, WIDTH, TIMES, RANK = 16, 64, 50, 4
NULL, FORGET, RELATED, UNRELATED = range(4)
SPREAD = 0.3


class Toy:
    """Three clouds of points, of which two are close, as a `Denoiser`: all that objectives and the
    loop ask for.
    """

    def __init__(self, seed: int, steps: int = 1500) -> None:
        self.source = torch.Generator().manual_seed(seed)
        means = torch.randn(3, DIM, generator=self.source)
        means[1] = 0.6 * means[0] + 0.8 * means[1]
        self.means = 1.5 * F.normalize(means, dim=1) * DIM**0.5 / 2
        self.names = torch.randn(4, 8, generator=self.source)
        self.names[RELATED] = 0.5 * self.names[FORGET] + 0.85 * self.names[RELATED]
        self.names[NULL] = 0.0
        self.alphas = torch.cumprod(1 - torch.linspace(1e-3, 0.2, TIMES), 0)
        self.parameterization = Epsilon(self.alphas)
        shapes = {"inside": (WIDTH, DIM + 16 + 8), "outside": (DIM, WIDTH)}
        shapes |= {
            f"{part}{block}": (WIDTH, WIDTH) for block in range(2) for part in ("up", "down")
        }
        self.base = {
            n: torch.randn(*s, generator=self.source) * s[1] ** -0.5 for n, s in shapes.items()
        }
        self.original = self.base
        self._factors: Params = {}
        self._learn(steps)
        self.original = self.base

    def _learn(self, steps: int) -> None:
        weights = {name: weight.requires_grad_() for name, weight in self.base.items()}
        mover = torch.optim.Adam(weights.values(), lr=3e-3)
        for _ in range(steps):
            kinds = torch.randint(1, 4, (96,), generator=self.source)
            batch = self.batch(kinds)
            kept = torch.rand(96, 1, 1, generator=self.source) > 0.15
            cond = Conditioning(batch.cond.states * kept)
            mover.zero_grad()
            F.mse_loss(self.predict(batch.x_t, batch.t, cond, weights), batch.noise).backward()
            mover.step()
        self.base = {name: weight.detach() for name, weight in weights.items()}

    def points(self, kinds: Tensor) -> Tensor:
        """A point (B, 16, 1, 1) of each kind."""
        drawn = self.means[kinds - 1] + SPREAD * torch.randn(len(kinds), DIM, generator=self.source)
        return drawn.view(-1, DIM, 1, 1)

    def cond(self, kinds: Tensor) -> Conditioning:
        return Conditioning(self.names[kinds].unsqueeze(1))

    def batch(self, kinds: Tensor, x0: Tensor | None = None) -> NoisyBatch:
        x0 = self.points(kinds) if x0 is None else x0
        noise = torch.randn(x0.shape, generator=self.source)
        t = torch.randint(TIMES, (len(kinds),), generator=self.source)
        null, anchor = (self.cond(torch.full_like(kinds, kind)) for kind in (NULL, RELATED))
        x_t = self.parameterization.add_noise(x0, noise, t)
        return NoisyBatch(x0, noise, t, x_t, self.cond(kinds), null, anchor)

    def of(self, kind: int, count: int = 32) -> NoisyBatch:
        return self.batch(torch.full((count,), kind))

    def harmless(self, count: int = 64) -> NoisyBatch:
        """Both other kinds."""
        return self.batch(torch.randint(RELATED, UNRELATED + 1, (count,), generator=self.source))

    def again(self, points: Tensor, count: int = 32) -> NoisyBatch:
        """Some of the forget points that an adversary holds."""
        rows = torch.randint(len(points), (count,), generator=self.source)
        return self.batch(torch.full((count,), FORGET), points[rows])

    def meta_batch(self, steps: int) -> MetaBatch:
        support = tuple(self.of(FORGET) for _ in range(steps))
        return MetaBatch(support, self.of(FORGET), self.of(RELATED), self.of(UNRELATED), seed=0)

    def predict(
        self, x_t: Tensor, t: Tensor, cond: Conditioning, params: Params | None = None
    ) -> Tensor:
        w = params if params is not None and "inside" in params else self.weights("unlearn", params)
        angle = t.float().view(-1, 1) / TIMES * torch.arange(1, 9) * torch.pi
        hidden = F.linear(
            torch.cat([x_t.flatten(1), angle.sin(), angle.cos(), cond.states[:, 0]], 1), w["inside"]
        )
        for block in range(2):
            hidden = hidden + F.linear(F.silu(F.linear(hidden, w[f"up{block}"])), w[f"down{block}"])
        return F.linear(F.silu(hidden), w["outside"]).view(x_t.shape)

    @torch.no_grad()
    def frozen(self, x_t: Tensor, t: Tensor, cond: Conditioning) -> Tensor:
        return self.predict(x_t, t, cond, self.original)

    def adapter(self) -> Params:
        """A fresh adapter on every matrix, which is active from now on."""
        self._factors = {}
        for name, weight in self.base.items():
            a = torch.randn(RANK, weight.shape[1], generator=self.source) * weight.shape[1] ** -0.5
            self._factors |= {f"{name}.A": a, f"{name}.B": torch.zeros(weight.shape[0], RANK)}
        for tensor in self._factors.values():
            tensor.requires_grad_()
        return self._factors

    def merge(self) -> None:
        """Make the update part of the weights."""
        self.base = {name: weight.detach() for name, weight in self.weights("unlearn").items()}
        self._factors = {}

    def weights(self, slot: str | None = None, params: Params | None = None) -> Params:
        own = self._factors | (params or {})
        return {
            n: w + own[f"{n}.B"] @ own[f"{n}.A"] if f"{n}.A" in own else w
            for n, w in self.base.items()
        }

    @contextmanager
    def active(self, *slots: str):
        yield

    @torch.no_grad()
    def hits(
        self, kind: int, count: int = 200, guidance_scale: float = 2.0, seed: int = 0
    ) -> float:
        """The share of points sampled for `kind` (DDIM) that are nearest to its own cloud and close
        to it.
        """
        source, kinds = torch.Generator().manual_seed(seed), torch.full((count,), kind)
        x = torch.randn(count, DIM, 1, 1, generator=source)
        for time in reversed(range(TIMES)):
            t = torch.full((count,), time)
            named, null = (
                self.predict(x, t, self.cond(k)) for k in (kinds, torch.full_like(kinds, NULL))
            )
            noise = null + guidance_scale * (named - null)
            now = self.alphas[time]
            before = self.alphas[time - 1] if time else torch.tensor(1.0)
            x0 = (x - (1 - now).sqrt() * noise) / now.sqrt()
            x = before.sqrt() * x0 + (1 - before).sqrt() * noise
        apart = torch.cdist(x.flatten(1), self.means)
        near = apart.argmin(1) == kind - 1
        return (near & (apart[:, kind - 1] < 3 * SPREAD * DIM**0.5)).float().mean().item()
