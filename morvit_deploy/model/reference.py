"""The reference implementation: the dynamic MoR-ViT in eager PyTorch, one function per routing.

It favours clarity over speed: each image is routed individually, step by step. It must not import export code.
`model.double()` is the float64 reference that every bundle is verified against.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import pairwise

import torch
from torch import Tensor, nn

from morvit_deploy.model import decisions
from morvit_deploy.model.choices import Output
from morvit_deploy.model.config import Config
from morvit_deploy.model.layers import Block, PatchEmbed, Predictor, Router
from morvit_deploy.model.merging import merged
from morvit_deploy.model.reducing import attentive, predicted
from morvit_deploy.model.selecting import decide, order_of
from morvit_deploy.model.trace import Decision, Outcome, Routing, Trace


class MoRViT(nn.Module):
    """A Vision Transformer with Mixture-of-Recursions (paper §3.2–3.4)."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        dim = config.embed_dim
        self.patch_embed = PatchEmbed(config)
        if config.cls_token:
            self.cls_token = nn.Parameter(torch.zeros(1, 1, dim))
        self.pos_embed = nn.Parameter(torch.zeros(1, config.front + config.num_patches, dim))
        if config.register_tokens:  # position embeddings included
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
        """Return the unique blocks of the cycle in order."""
        return [block for block in self.cycle if isinstance(block, Block)]

    def layers(self) -> Iterator[tuple[str, Block]]:
        """Yield the checkpoint name and the block of each layer, in the order of application."""
        if self.first is not None:
            yield "first", self.first
        for _ in range(self.config.num_recursions):
            for i, block in enumerate(self.cycle_blocks()):
                yield f"cycle.{i}", block
        if self.last is not None:
            yield "last", self.last

    def all_routers(self) -> list[Router]:
        """Return the routers: one for each step, or a single one."""
        return [router for router in self.routers if isinstance(router, Router)]

    def predictors(self) -> list[Predictor]:
        """Return the predictors, one for each step; empty with other routings."""
        return [router for router in self.routers if isinstance(router, Predictor)]

    def head_layers(self) -> list[nn.Linear]:
        """Return the head's linear layers in order."""
        return [layer for layer in self.head.modules() if isinstance(layer, nn.Linear)]

    def embed(self, images: Tensor) -> Tensor:
        """Embed normalised images (batch, channels, height, width) as tokens (batch, N+1, dim) (paper §3.1).

        CLS, if there is one, is the first. Register tokens, if any, follow the patches.
        """
        x: Tensor = self.patch_embed(images)
        if self.config.cls_token:
            x = torch.cat([self.cls_token.expand(len(images), -1, -1), x], dim=1)
        x = x + self.pos_embed
        if not self.config.register_tokens:
            return x
        return torch.cat([x, self.register_tokens.expand(len(images), -1, -1)], dim=1)

    def router(self, step: int) -> Router:
        """Return the router of a step, counted from 0."""
        shared = self.config.router is not None and self.config.router.shared
        return self.all_routers()[0 if shared else step]

    def score(self, z: Tensor) -> Tensor:
        """Return g = α·act(z)."""
        assert self.config.router is not None
        return decisions.score(z, self.config.router.activation, self.config.router.alpha)

    def gated_step(self, h: Tensor, running: Tensor, g: Tensor) -> Tensor:
        """Apply the cycle once to the running tokens of h (N+1, dim); the other states are unchanged."""
        after = h
        for block in self.cycle_blocks():
            context = after if self.config.attention_scope == "all" else after[running]
            after = after.index_copy(0, running, block(after[running], context))
        old, new, g = h[running], after[running], g[:, None]
        gated = {"block": old + g * new, "delta": old + g * (new - old), "hard": new}[self.config.gate]
        return h.index_copy(0, running, gated)

    def pool(self, h: Tensor) -> Tensor:
        """Return the vector (dim,) that the head reads, of the final states h (tokens, dim).

        A mean is that of the patch tokens alone: neither CLS nor registers are in it.
        """
        if self.config.pooling == "cls":
            pooled: Tensor = self.norm(h[0])
            return pooled
        patches = self._patches(h)
        if self.config.pooling == "mean_norm":
            pooled = self.norm(patches.mean(dim=0))
        else:
            pooled = self.norm(patches).mean(dim=0)
        return pooled

    def tokens(self, h: Tensor) -> Tensor:
        """Return the patch tokens (N, dim) of the final states h, after the final norm.

        With pooling `mean_norm` the norm belongs to the mean, so the tokens are returned as they are.
        """
        patches = self._patches(h)
        return patches if self.config.pooling == "mean_norm" else self.norm(patches)

    def _patches(self, h: Tensor) -> Tensor:
        return h[self.config.front :][: self.config.num_patches]

    def classify(self, cls: Tensor) -> Tensor:
        """Map final states of CLS (..., dim) to logits (..., classes)."""
        return self.logits(self.norm(cls))

    def logits(self, x: Tensor) -> Tensor:
        """Map pooled vectors (..., dim) to logits (..., classes); an MLP head has tanh between its layers."""
        for j, layer in enumerate(self.head_layers()):
            x = layer(torch.tanh(x) if j else x)
        return x

    def forward(self, images: Tensor, route: Routing | None = None, output: Output = "logits") -> Outcome:
        """Run normalised images (batch, channels, height, width); returns logits, token depths and traces.

        With `output` features the outcome also has the vectors that the head reads, with tokens all patch tokens.

        Without `route`, the model runs as trained: top-k by the checkpoint's own schedule (paper §3.2), or by its
        own thresholds (paper §5.3).
        """
        chosen = route or Routing.of(self.config)
        logits, depths, traces, vectors = [], [], [], []
        for h in self.embed(images):
            trace = Trace(states={"embed": h})
            h, depth = FORWARD[self.config.routing](self, h, trace, chosen)
            pooled = self.pool(h)
            logits.append(self.logits(pooled))
            vectors.append(self.tokens(h) if output == "tokens" else pooled)
            depths.append(depth[self.config.front :][: self.config.num_patches])
            traces.append(trace)
        asked = None if output == "logits" else torch.stack(vectors)
        return Outcome(torch.stack(logits), torch.stack(depths), traces, asked)


def expert_choice(model: MoRViT, h: Tensor, trace: Trace, chosen: Routing) -> tuple[Tensor, Tensor]:
    """Run h (N+1, dim) through first, R routed steps and last (paper §3.2, §3.4)."""
    if model.first is not None:
        h = trace.states["first"] = model.first(h)
    depth = torch.zeros(len(h), dtype=torch.long)
    active = torch.arange(1, len(h))  # patch tokens; CLS is always active
    for step in range(model.config.num_recursions):
        z = model.router(step)(h)[:, 0]  # (N+1,)
        trace.decisions.append(decide(order_of(z[active], chosen), active - 1, step, chosen))
        active = trace.decisions[-1].kept + 1
        running = torch.cat([torch.zeros(1, dtype=torch.long), active])
        depth[running] += 1
        h = trace.states[f"step{step + 1}"] = model.gated_step(h, running, model.score(z[running]))
    if model.last is not None:
        h = trace.states["last"] = model.last(h)
    return h, depth


def expert_choice_flat(model: MoRViT, h: Tensor, trace: Trace, chosen: Routing) -> tuple[Tensor, Tensor]:
    """Like `expert_choice`, but every step selects among all tokens, including CLS."""
    assert model.first is not None and model.last is not None
    h = trace.states["first"] = model.first(h)
    depth = torch.zeros(len(h), dtype=torch.long)
    everyone = torch.arange(len(h))  # CLS is token 0
    for step in range(model.config.num_recursions):
        z = model.router(step)(h)[:, 0]  # (N+1,)
        order = torch.cat([z[:1], order_of(z[1:], chosen)])
        trace.decisions.append(decide(order, everyone, step, chosen))
        running = trace.decisions[-1].kept
        depth[running] += 1
        h = trace.states[f"step{step + 1}"] = model.gated_step(h, running, model.score(z[running]))
    h = trace.states["last"] = model.last(h)
    return h, depth


def token_choice(model: MoRViT, h: Tensor, trace: Trace, chosen: Routing) -> tuple[Tensor, Tensor]:
    """Choose each token's depth from its embedding; layer s updates the tokens with depth >= s."""
    z = model.router(0)(h)  # (N+1, L)
    depth = decisions.first_argmax(z) + 1
    depth[0] = model.config.num_layers
    depth[1:] = order_of(depth[1:], chosen)
    margin = decisions.argmax_margin(z[1:])
    candidates = torch.arange(1, len(h))
    deepest_first = torch.argsort(depth[1:], descending=True, stable=True) + 1
    for layer, (_, block) in enumerate(model.layers(), start=1):
        going = candidates[depth[candidates] >= layer]
        kept = going
        if chosen.capacity is not None:
            ranked = deepest_first[torch.isin(deepest_first, going)]
            kept = ranked[: chosen.capacity[layer - 1]].sort().values
        trace.decisions.append(Decision(candidates - 1, kept - 1, z[candidates], margin, len(going)))
        candidates = kept
        running = torch.cat([torch.zeros(1, dtype=torch.long), kept])
        context = h if model.config.attention_scope == "all" else h[running]
        h = trace.states[f"step{layer}"] = h.index_copy(0, running, block(h[running], context))
    return h, depth


def dense(model: MoRViT, h: Tensor, trace: Trace, _chosen: Routing) -> tuple[Tensor, Tensor]:
    """Run every token through every layer."""
    for layer, (_, block) in enumerate(model.layers(), start=1):
        h = trace.states[f"layer{layer}"] = block(h)
    return h, torch.full((len(h),), model.config.num_recursions)


# name of a routing -> function from the tokens h (N+1, dim) of an image to their final states and depths
FORWARD: dict[str, Callable[[MoRViT, Tensor, Trace, Routing], tuple[Tensor, Tensor]]] = {
    "expert_choice": expert_choice,
    "expert_choice_flat": expert_choice_flat,
    "token_choice": token_choice,
    "none": dense,
    "attentive": attentive,
    "predicted": predicted,
    "merged": merged,
}


def _routers(config: Config) -> list[Router] | list[Predictor]:
    if config.record.predicts:
        return [Predictor(config) for _ in range(config.record.num_routers(config))]
    if config.router is None:
        return []
    width = config.record.router_width(config)
    return [Router(config.router, config.embed_dim, width) for _ in range(config.record.num_routers(config))]
