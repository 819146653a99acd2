"""The reference: the dynamic MoR-ViT in plain eager PyTorch. Slow, plain, and right; it is the judge.

Each image is routed on its own, each token's leaving is spelled out, and nothing here knows of export.
`model.double()` gives the float64 judge that every parity check compares with.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from morvit_deploy.model import decisions as routing
from morvit_deploy.model.config import Config, RouterConfig

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": F.gelu,
    "gelu_tanh": partial(F.gelu, approximate="tanh"),
    "relu": F.relu,
}


class Attention(nn.Module):
    """Multi-head self-attention, timm's names and layout."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.num_heads = config.num_heads
        self.qkv = nn.Linear(config.embed_dim, 3 * config.embed_dim, bias=config.qkv_bias)
        self.proj = nn.Linear(config.embed_dim, config.embed_dim)

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """x (..., q, dim) attends to context (..., k, dim), by default to itself; returns (..., q, dim)."""
        context = x if context is None else context
        dim = x.shape[-1]
        weight_q, weight_kv = self.qkv.weight.split((dim, 2 * dim))
        bias_q, bias_kv = (None, None) if self.qkv.bias is None else self.qkv.bias.split((dim, 2 * dim))
        q = self._heads(F.linear(x, weight_q, bias_q))
        k, v = (self._heads(part) for part in F.linear(context, weight_kv, bias_kv).chunk(2, dim=-1))
        weights = (q @ k.transpose(-2, -1) * q.shape[-1] ** -0.5).softmax(dim=-1)  # (..., heads, q, k)
        return self.proj((weights @ v).transpose(-3, -2).flatten(-2))

    def _heads(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.num_heads, -1)).transpose(-3, -2)  # (..., heads, tokens, head_dim)


class Mlp(nn.Module):
    """fc1, activation, fc2."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.fc1 = nn.Linear(config.embed_dim, config.mlp_dim)
        self.fc2 = nn.Linear(config.mlp_dim, config.embed_dim)
        self.activation = ACTIVATIONS[config.activation]

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(self.activation(self.fc1(x)))


class Block(nn.Module):
    """One pre-norm Transformer block, residuals included."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(config.embed_dim, eps=config.norm_eps)
        self.attn = Attention(config)
        self.norm2 = nn.LayerNorm(config.embed_dim, eps=config.norm_eps)
        self.mlp = Mlp(config)

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """New states of x (..., q, dim); keys and values come from context (..., k, dim), by default from x."""
        normed = self.norm1(x)
        x = x + self.attn(normed, normed if context is None else self.norm1(context))
        return x + self.mlp(self.norm2(x))


class PatchEmbed(nn.Module):
    """Image (batch, 3, height, width) to patch embeddings (batch, N, dim), row by row."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.proj = nn.Conv2d(
            config.in_channels, config.embed_dim, config.patch_size, stride=config.patch_size
        )

    def forward(self, images: Tensor) -> Tensor:
        return self.proj(images).flatten(2).transpose(1, 2)


class Router(nn.ModuleList):
    """An MLP from a token's state to its router logits; GELU after the first layer, ReLU after the others."""

    def __init__(self, config: RouterConfig, in_dim: int, out_dim: int) -> None:
        widths = [in_dim, *config.hidden, out_dim]
        super().__init__(nn.Linear(a, b, bias=config.bias) for a, b in pairwise(widths))

    def linears(self) -> list[nn.Linear]:
        """The linear layers in order."""
        return [layer for layer in self if isinstance(layer, nn.Linear)]

    def forward(self, x: Tensor) -> Tensor:
        """x (..., dim) to logits (..., out_dim)."""
        for j, layer in enumerate(self.linears()):
            if j:
                x = F.gelu(x) if j == 1 else F.relu(x)
            x = layer(x)
        return x


@dataclass(frozen=True)
class Decision:
    """What one image's router decided at one step.

    Token numbers count those that are routed from 0: the patches, or, where CLS is routed too, CLS and the patches.
    """

    candidates: Tensor  # (n,) tokens that faced the router
    kept: Tensor  # (k,) tokens that run the step
    router_logits: Tensor  # (n,), for token_choice (n, layers)
    margin: float  # in router logits: the least change that could alter the decision
    wanted: int  # tokens that would run the step if the capacity did not bind; for top-k the capacity


@dataclass
class Trace:
    """All that happened to one image: decisions, and every token's state after each stage."""

    decisions: list[Decision] = field(default_factory=list)
    states: dict[str, Tensor] = field(default_factory=dict)  # stage -> (N+1, dim), CLS first

    @property
    def margin(self) -> float:
        """The image's routing margin: the least of its decisions'."""
        return min((d.margin for d in self.decisions), default=float("inf"))

    @property
    def counts(self) -> tuple[int, ...]:
        """Tokens that ran each step, counted as a capacity counts them."""
        return tuple(len(d.kept) for d in self.decisions)

    @property
    def overflow(self) -> bool:
        """Did a capacity keep a token from a step that its router wanted it to run?"""
        return any(d.wanted > len(d.kept) for d in self.decisions)


@dataclass(frozen=True)
class Routing:
    """Which tokens go on, where it is not the checkpoint's own schedule.

    expert_choice: with `thresholds` a token goes on when its router logit reaches its step's (None: all go on), and
    each image has counts of its own (paper §5.3); with `capacity` at most so many, the highest, go on.
    expert_choice_flat: `capacity`, no thresholds.
    token_choice has depths instead of thresholds; with `capacity` the deepest so many, on a tie the first.
    """

    thresholds: Sequence[float | None] | None = None
    capacity: Sequence[int] | None = None


@dataclass(frozen=True)
class Outcome:
    """What the reference answers for a batch."""

    logits: Tensor  # (batch, classes)
    depth: Tensor  # (batch, N) steps that each patch token ran
    traces: list[Trace]

    @property
    def runs(self) -> Tensor:
        """bool (steps, batch, routed tokens): who ran each step, by the routers' decisions."""
        steps, tokens = len(self.traces[0].decisions), len(self.traces[0].decisions[0].candidates)
        runs = torch.zeros(steps, len(self.traces), tokens, dtype=torch.bool)
        for image, trace in enumerate(self.traces):
            for step, decision in enumerate(trace.decisions):
                runs[step, image, decision.kept] = True
        return runs


class MoRViT(nn.Module):
    """A Vision Transformer with Mixture-of-Recursions (paper §3.2–3.4), one image at a time."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        dim = config.embed_dim
        self.patch_embed = PatchEmbed(config)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, dim))
        self.pos_embed = nn.Parameter(torch.zeros(1, config.num_patches + 1, dim))
        if config.register_tokens:  # their positions are added to them
            self.register_tokens = nn.Parameter(torch.zeros(1, config.register_tokens, dim))
        ends = config.sharing == "middle_cycle"
        self.first = Block(config) if ends else None
        self.cycle = nn.ModuleList(Block(config) for _ in range(config.cycle_depth))
        self.last = Block(config) if ends else None
        self.routers = nn.ModuleList(_routers(config))
        self.norm = nn.LayerNorm(dim, eps=config.norm_eps)
        widths = [dim, *config.head_hidden, config.num_classes]
        layers = [nn.Linear(a, b) for a, b in pairwise(widths)]
        self.head = nn.ModuleList(layers) if config.head_hidden else layers[0]

    def cycle_blocks(self) -> list[Block]:
        """The unique blocks of the cycle in order."""
        return [block for block in self.cycle if isinstance(block, Block)]

    def layers(self) -> Iterator[tuple[str, Block]]:
        """Every block application of a token of full depth, in order, with the block's checkpoint name."""
        if self.first is not None:
            yield "first", self.first
        for _ in range(self.config.num_recursions):
            for i, block in enumerate(self.cycle_blocks()):
                yield f"cycle.{i}", block
        if self.last is not None:
            yield "last", self.last

    def all_routers(self) -> list[Router]:
        """The routers there are: one for each step, or one."""
        return [router for router in self.routers if isinstance(router, Router)]

    def head_layers(self) -> list[nn.Linear]:
        """The head's linear layers in order."""
        return [layer for layer in self.head.modules() if isinstance(layer, nn.Linear)]

    def embed(self, images: Tensor) -> Tensor:
        """Normalised images (batch, 3, height, width) to tokens (batch, N+1, dim), CLS first (paper §3.1).

        Registers, where there are some, stand behind the patches.
        """
        patches = self.patch_embed(images)
        cls = self.cls_token.expand(len(images), -1, -1)
        x = torch.cat([cls, patches], dim=1) + self.pos_embed
        if not self.config.register_tokens:
            return x
        return torch.cat([x, self.register_tokens.expand(len(images), -1, -1)], dim=1)

    def router(self, step: int) -> Router:
        """The router of step `step`, counted from 0."""
        shared = self.config.router is not None and self.config.router.shared
        return self.all_routers()[0 if shared else step]

    def score(self, z: Tensor) -> Tensor:
        """g = α·act(z)."""
        assert self.config.router is not None
        return routing.score(z, self.config.router.activation, self.config.router.alpha)

    def classify(self, cls: Tensor) -> Tensor:
        """CLS states (..., dim) to logits (..., classes); an MLP head has tanh between its layers."""
        x = self.norm(cls)
        for j, layer in enumerate(self.head_layers()):
            x = layer(torch.tanh(x) if j else x)
        return x

    def forward(self, images: Tensor, route: Routing | None = None) -> Outcome:
        """Normalised images (batch, 3, height, width) to logits, token depths and the full trace.

        Without `route`, the model as it was trained: top-k by the checkpoint's own schedule (paper §3.2).
        """
        walk = {
            "expert_choice": self._expert_choice,
            "expert_choice_flat": self._expert_choice_flat,
            "token_choice": self._token_choice,
            "none": self._dense,
        }
        chosen = route or Routing(capacity=self.config.capacity)
        logits, depths, traces = [], [], []
        for h in self.embed(images):
            trace = Trace(states={"embed": h})
            h, depth = walk[self.config.routing](h, trace, chosen)
            logits.append(self.classify(h[0]))
            depths.append(depth[1 : 1 + self.config.num_patches])
            traces.append(trace)
        return Outcome(torch.stack(logits), torch.stack(depths), traces)

    def _expert_choice(self, h: Tensor, trace: Trace, chosen: Routing) -> tuple[Tensor, Tensor]:
        """h (N+1, dim) through first, R routed steps and last (paper §3.2, §3.4)."""
        if self.first is not None:
            h = trace.states["first"] = self.first(h)
        depth = torch.zeros(len(h), dtype=torch.long)
        active = torch.arange(1, len(h))  # patch tokens; CLS is always active
        for step in range(self.config.num_recursions):
            z = self.router(step)(h)[:, 0]  # (N+1,)
            trace.decisions.append(_decide(z[active], active - 1, step, chosen))
            active = trace.decisions[-1].kept + 1
            running = torch.cat([torch.zeros(1, dtype=torch.long), active])
            depth[running] += 1
            h = trace.states[f"step{step + 1}"] = self._gated_step(h, running, self.score(z[running]))
        if self.last is not None:
            h = trace.states["last"] = self.last(h)
        return h, depth

    def _expert_choice_flat(self, h: Tensor, trace: Trace, chosen: Routing) -> tuple[Tensor, Tensor]:
        """As `_expert_choice`, but every step chooses among all tokens anew, and CLS is one of them."""
        assert self.first is not None and self.last is not None
        h = trace.states["first"] = self.first(h)
        depth = torch.zeros(len(h), dtype=torch.long)
        everyone = torch.arange(len(h))  # CLS is token 0
        for step in range(self.config.num_recursions):
            z = self.router(step)(h)[:, 0]  # (N+1,)
            trace.decisions.append(_decide(z, everyone, step, chosen))
            running = trace.decisions[-1].kept
            depth[running] += 1
            h = trace.states[f"step{step + 1}"] = self._gated_step(h, running, self.score(z[running]))
        h = trace.states["last"] = self.last(h)
        return h, depth

    def _gated_step(self, h: Tensor, running: Tensor, g: Tensor) -> Tensor:
        """One application of the cycle to the running tokens of h (N+1, dim); the others stand still."""
        after = h
        for block in self.cycle_blocks():
            context = after if self.config.attention_scope == "all" else after[running]
            after = after.index_copy(0, running, block(after[running], context))
        old, new, g = h[running], after[running], g[:, None]
        gated = {"block": old + g * new, "delta": old + g * (new - old), "hard": new}[self.config.gate]
        return h.index_copy(0, running, gated)

    def _token_choice(self, h: Tensor, trace: Trace, chosen: Routing) -> tuple[Tensor, Tensor]:
        """Each token gets its depth from its embedding; layer s updates the tokens with depth >= s."""
        z = self.router(0)(h)  # (N+1, L)
        depth = routing.first_argmax(z) + 1
        depth[0] = self.config.num_layers
        margin = routing.argmax_margin(z[1:])
        candidates = torch.arange(1, len(h))
        deepest_first = torch.argsort(depth[1:], descending=True, stable=True) + 1
        for layer, (_, block) in enumerate(self.layers(), start=1):
            going = candidates[depth[candidates] >= layer]
            kept = going
            if chosen.capacity is not None:
                kept = (
                    deepest_first[torch.isin(deepest_first, going)][: chosen.capacity[layer - 1]]
                    .sort()
                    .values
                )
            trace.decisions.append(Decision(candidates - 1, kept - 1, z[candidates], margin, len(going)))
            candidates = kept
            running = torch.cat([torch.zeros(1, dtype=torch.long), kept])
            context = h if self.config.attention_scope == "all" else h[running]
            h = trace.states[f"step{layer}"] = h.index_copy(0, running, block(h[running], context))
        return h, depth

    def _dense(self, h: Tensor, trace: Trace, _chosen: Routing) -> tuple[Tensor, Tensor]:
        """Every token runs every layer."""
        for layer, (_, block) in enumerate(self.layers(), start=1):
            h = trace.states[f"layer{layer}"] = block(h)
        return h, torch.full((len(h),), self.config.num_recursions)


def _decide(z: Tensor, candidates: Tensor, step: int, chosen: Routing) -> Decision:
    """Step `step` (from 0) for candidates (n,) with router logits z (n,): a threshold, a top-k, or both."""
    going, margin = torch.arange(len(z)), float("inf")
    if chosen.thresholds is not None and (threshold := chosen.thresholds[step]) is not None:
        going, margin = routing.at_least(z, threshold), routing.threshold_margin(z, threshold)
    capacity = len(z) if chosen.capacity is None else chosen.capacity[step]
    kept = going[routing.top_k(z[going], capacity)]
    margin = min(margin, routing.top_k_margin(z[going], capacity))
    wanted = len(kept) if chosen.thresholds is None else len(going)
    return Decision(candidates, candidates[kept], z, margin, wanted)


def _routers(config: Config) -> list[Router]:
    if config.router is None:
        return []
    if config.routing == "token_choice":
        return [Router(config.router, config.embed_dim, config.num_layers)]
    count = 1 if config.router.shared else config.num_recursions
    return [Router(config.router, config.embed_dim, 1) for _ in range(count)]
