"""The model a second time, from the paper, in numpy: lists of token numbers, one token at a time, float64.

It shares no code with the package: only the names and layouts of the tensors in a checkpoint.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from morvit_deploy.model.reference import MoRViT

Floats = NDArray[np.float64]
ERF = np.vectorize(math.erf, otypes=[float])


def gelu(x: Floats) -> Floats:
    return x * (1 + ERF(x / math.sqrt(2))) / 2


def gelu_tanh(x: Floats) -> Floats:
    return x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))) / 2


def relu(x: Floats) -> Floats:
    return np.maximum(x, 0)


ACTIVATIONS = {"gelu": gelu, "gelu_tanh": gelu_tanh, "relu": relu}


class Oracle:
    """Logits and depths of one image at a time."""

    def __init__(self, model: MoRViT) -> None:
        self.config = model.config
        self.w: dict[str, Floats] = {k: v.double().numpy() for k, v in model.state_dict().items()}

    def __call__(self, image: Floats) -> tuple[Floats, list[int]]:
        """Normalised image (3, height, width) to logits (classes,) and depths (N,)."""
        h = self.embed(image)
        walk: Any = getattr(self, f"walk_{self.config.routing}")
        depth = walk(h)
        return self.head(self.pool(h)), depth

    def pool(self, h: list[Floats]) -> Floats:
        """What the head reads of the final states."""
        patches = h[1:] if self.config.cls_token else h
        patches = patches[: self.config.num_patches]
        if self.config.pooling == "cls":
            return self.norm("norm", h[0])
        if self.config.pooling == "mean_norm":
            return self.norm("norm", sum(patches) / len(patches))
        return sum(self.norm("norm", patch) for patch in patches) / len(patches)

    def linear(self, name: str, x: Floats) -> Floats:
        y = self.w[f"{name}.weight"] @ x
        return y + self.w[f"{name}.bias"] if f"{name}.bias" in self.w else y

    def norm(self, name: str, x: Floats) -> Floats:
        centred = x - x.mean()
        scaled = centred / math.sqrt((centred**2).mean() + self.config.norm_eps)
        return scaled * self.w[f"{name}.weight"] + self.w[f"{name}.bias"]

    def embed(self, image: Floats) -> list[Floats]:
        """A list of N + 1 states, CLS first if there is one, and the registers behind them."""
        size = self.config.patch_size
        step = self.config.patch_stride or size
        positions = self.w["pos_embed"][0]
        h = [self.w["cls_token"][0, 0] + positions[0]] if self.config.cls_token else []
        for top in range(0, image.shape[1] - size + 1, step):
            for left in range(0, image.shape[2] - size + 1, step):
                patch = image[:, top : top + size, left : left + size]
                state = np.tensordot(self.w["patch_embed.proj.weight"], patch, axes=3)
                h.append(state + self.w["patch_embed.proj.bias"] + positions[len(h)])
        return h + list(self.w["register_tokens"][0] if "register_tokens" in self.w else [])

    def block(self, name: str, x: Floats, context: list[Floats]) -> Floats:
        """The new state of one token x, which attends to the states in context."""
        return self.fed(name, self.attended(name, x, context))

    def attended(self, name: str, x: Floats, context: list[Floats], more: Floats | float = 0.0) -> Floats:
        """The first half of a block: attention, with `more` added to the logit of each state in context."""
        dim = self.config.embed_dim
        width = dim // self.config.num_heads
        q = self.linear(f"{name}.attn.qkv", self.norm(f"{name}.norm1", x))[:dim]
        kv = [self.linear(f"{name}.attn.qkv", self.norm(f"{name}.norm1", c))[dim:] for c in context]
        mixed = []
        for start in range(0, dim, width):
            part = slice(start, start + width)
            logits = np.array([q[part] @ key_value[:dim][part] for key_value in kv]) / math.sqrt(width) + more
            weights = np.exp(logits - logits.max())
            weights /= weights.sum()
            mixed.append(sum(a * key_value[dim:][part] for a, key_value in zip(weights, kv, strict=True)))
        return x + self.linear(f"{name}.attn.proj", np.concatenate(mixed))

    def fed(self, name: str, x: Floats) -> Floats:
        """The second half of a block: the MLP."""
        hidden = ACTIVATIONS[self.config.activation](
            self.linear(f"{name}.mlp.fc1", self.norm(f"{name}.norm2", x))
        )
        return x + self.linear(f"{name}.mlp.fc2", hidden)

    def attention_of(self, name: str, x: Floats, context: list[Floats]) -> Floats:
        """The weights that token x gives the states in context, (heads, n)."""
        dim = self.config.embed_dim
        width = dim // self.config.num_heads
        q = self.linear(f"{name}.attn.qkv", self.norm(f"{name}.norm1", x))[:dim]
        keys = [
            self.linear(f"{name}.attn.qkv", self.norm(f"{name}.norm1", c))[dim : 2 * dim] for c in context
        ]
        rows = []
        for start in range(0, dim, width):
            part = slice(start, start + width)
            weights = np.exp(np.array([q[part] @ key[part] for key in keys]) / math.sqrt(width))
            rows.append(weights / weights.sum())
        return np.array(rows)

    def predictions(self, step: int, states: list[Floats]) -> list[float]:
        """DynamicViT's predictor: for each patch token the logit of going on minus that of leaving."""
        half = self.config.embed_dim // 2
        embedded = []
        for x in states:
            centred = x - x.mean()
            x = centred / math.sqrt((centred**2).mean() + 1e-5)
            x = x * self.w[f"routers.{step}.norm.weight"] + self.w[f"routers.{step}.norm.bias"]
            embedded.append(gelu(self.linear(f"routers.{step}.embed", x)))
        shared = sum(x[half:] for x in embedded) / len(embedded)
        answers = []
        for x in embedded:
            x = np.concatenate([x[:half], shared])
            for j in range(3):
                x = self.linear(f"routers.{step}.layers.{j}", gelu(x) if j else x)
            answers.append(float(x[0] - x[1]))
        return answers

    def router(self, step: int, x: Floats) -> Floats:
        router = self.config.router
        assert router is not None
        step = 0 if router.shared else step
        for j in range(len(router.hidden) + 1):
            x = self.linear(f"routers.{step}.{j}", (gelu(x) if j == 1 else relu(x)) if j else x)
        return x

    def head(self, x: Floats) -> Floats:
        if not self.config.head_hidden:
            return self.linear("head", x)
        for j in range(len(self.config.head_hidden) + 1):
            x = self.linear(f"head.{j}", np.tanh(x) if j else x)
        return x

    def walk_attentive(self, h: list[Floats]) -> list[int]:
        reduction, capacity = self.config.reduction, self.config.capacity
        assert reduction is not None and capacity is not None
        patches = len(h) - 1
        depth, kept = [0] * patches, list(range(1, len(h)))  # tokens that are still there
        for layer in range(self.config.cycle_depth):
            name, running = f"cycle.{layer}", [0, *kept]
            context = [h[t] for t in running]
            weights = self.attention_of(name, h[0], context).mean(axis=0)
            scores = dict(zip(running, weights, strict=True))
            for t, x in zip(running, [self.attended(name, x, context) for x in context], strict=True):
                h[t] = x
            if layer in reduction.layers:
                best = sorted(kept, key=lambda t: (-scores[t], t))[: capacity[reduction.layers.index(layer)]]
                leaving = [t for t in kept if t not in best]
                kept = [t for t in kept if t in best]
                if reduction.fuse and leaving:
                    h.append(sum(scores[t] * h[t] for t in leaving))  # type: ignore[arg-type]
                for t in kept:
                    depth[t - 1 : t] = [depth[t - 1] + 1] if t <= patches else []
                kept += [len(h) - 1] if reduction.fuse and leaving else []
            for t in [0, *kept]:
                h[t] = self.fed(name, h[t])
        return depth

    def walk_predicted(self, h: list[Floats]) -> list[int]:
        reduction, capacity = self.config.reduction, self.config.capacity
        assert reduction is not None and capacity is not None
        depth, kept = [0] * (len(h) - 1), list(range(1, len(h)))
        for layer in range(self.config.cycle_depth):
            if layer in reduction.layers:
                step = reduction.layers.index(layer)
                z = dict(zip(kept, self.predictions(step, [h[t] for t in kept]), strict=True))
                kept = sorted(sorted(kept, key=lambda t: (-z[t], t))[: capacity[step]])
                for t in kept:
                    depth[t - 1] += 1
            running = [0, *kept]
            new = [self.block(f"cycle.{layer}", h[t], [h[s] for s in running]) for t in running]
            for t, x in zip(running, new, strict=True):
                h[t] = x
        return depth

    def direction(self, name: str, x: Floats) -> Floats:
        """Of length 1: where the mean of a token's keys over the heads points."""
        dim, heads = self.config.embed_dim, self.config.num_heads
        keys = self.linear(f"{name}.attn.qkv", self.norm(f"{name}.norm1", x))[dim : 2 * dim]
        mean = sum(np.split(keys, heads)) / heads
        return np.asarray(mean / math.sqrt(mean @ mean))

    def walk_merged(self, h: list[Floats]) -> list[int]:
        """A token is a list of patches, the first of which it is named after; CLS is [0]."""
        reduction, capacity = self.config.reduction, self.config.capacity
        assert reduction is not None and capacity is not None
        depth, tokens = [0] * (len(h) - 1), [[t] for t in range(len(h))]
        for layer in range(self.config.cycle_depth):
            name, context = f"cycle.{layer}", [h[token[0]] for token in tokens]
            weighs = np.log([len(token) for token in tokens]) if reduction.proportional else 0.0
            points = {token[0]: self.direction(name, h[token[0]]) for token in tokens}
            for token, x in zip(tokens, context, strict=True):
                h[token[0]] = self.attended(name, x, context, weighs)
            if layer in reduction.layers:
                left = capacity[reduction.layers.index(layer)]
                tokens = self.joined(h, tokens, points, len(tokens) - 1 - left)
                for token in tokens[1:]:
                    depth[token[0] - 1] += 1
            for token in tokens:
                h[token[0]] = self.fed(name, h[token[0]])
        return depth

    def joined(
        self, h: list[Floats], tokens: list[list[int]], points: dict[int, Floats], merges: int
    ) -> list[list[int]]:
        """The tokens after those of even places that are most alike one of an odd place have joined it."""
        even, odd = tokens[2::2], tokens[1::2]
        found = []  # how alike, place, which joins, which is joined; of equals the first
        for place, token in enumerate(even):
            alike = [float(points[token[0]] @ points[other[0]]) for other in odd]
            best = alike.index(max(alike))
            found.append((-alike[best], place, token, odd[best]))
        joining = sorted(found, key=lambda pair: pair[:2])[:merges]
        for other in odd:
            members = [other, *(token for _, _, token, into in joining if into is other)]
            patches = sum(len(token) for token in members)
            h[other[0]] = sum(len(token) * h[token[0]] for token in members) / patches
        for _, _, token, into in joining:
            into.extend(token)
        gone = [token for _, _, token, _ in joining]
        return [tokens[0], *(token for token in even if token not in gone), *odd]

    def walk_expert_choice(self, h: list[Floats]) -> list[int]:
        config, router = self.config, self.config.router
        assert router is not None and config.capacity is not None
        taus = config.thresholds
        depth = [0] * len(h)
        if config.sharing == "middle_cycle":
            h[:] = [self.block("first", x, h) for x in h]
        active = list(range(1, len(h)))
        for step, capacity in enumerate(config.capacity):
            z = {t: float(self.router(step, h[t])[0]) for t in [0, *active]}
            if taus is None:
                active = sorted(sorted(active, key=lambda t: (-z[t], t))[:capacity])
            elif (tau := taus[step]) is not None:
                active = [t for t in active if z[t] >= tau]
            running = [0, *active]
            new = list(h)
            for i in range(config.cycle_depth):
                context = [new[t] for t in (range(len(h)) if config.attention_scope == "all" else running)]
                moved = {t: self.block(f"cycle.{i}", new[t], context) for t in running}
                new = [moved.get(t, x) for t, x in enumerate(new)]
            for t in running:
                depth[t] += 1
                g = router.alpha * (
                    math.tanh(z[t]) if router.activation == "tanh" else 1 / (1 + math.exp(-z[t]))
                )
                h[t] = {"block": h[t] + g * new[t], "delta": h[t] + g * (new[t] - h[t]), "hard": new[t]}[
                    config.gate
                ]
        if config.sharing == "middle_cycle":
            h[:] = [self.block("last", x, h) for x in h]
        return depth[1:]

    def walk_expert_choice_flat(self, h: list[Floats]) -> list[int]:
        assert self.config.capacity is not None
        depth = [0] * len(h)
        h[:] = [self.block("first", x, h) for x in h]
        for step, capacity in enumerate(self.config.capacity):
            z = [float(self.router(step, x)[0]) for x in h]
            chosen = sorted(range(len(h)), key=lambda t: (-z[t], t))[:capacity]
            for i in range(self.config.cycle_depth):
                context = [h[t] for t in chosen]
                for t, x in zip(
                    chosen, [self.block(f"cycle.{i}", h[t], context) for t in chosen], strict=True
                ):
                    h[t] = x
            for t in chosen:
                depth[t] += 1
        h[:] = [self.block("last", x, h) for x in h]
        return depth[1:]

    def layer_names(self) -> list[str]:
        cycle = [
            f"cycle.{i}" for _ in range(self.config.num_recursions) for i in range(self.config.cycle_depth)
        ]
        return ["first", *cycle, "last"] if self.config.sharing == "middle_cycle" else cycle

    def walk_token_choice(self, h: list[Floats]) -> list[int]:
        names = self.layer_names()
        scores = [list(self.router(0, x)) for x in h]
        depth = [len(names)] + [row.index(max(row)) + 1 for row in scores[1:]]
        for layer, name in enumerate(names, start=1):
            running = [t for t in range(len(h)) if depth[t] >= layer]
            context = [h[t] for t in (range(len(h)) if self.config.attention_scope == "all" else running)]
            moved = {t: self.block(name, h[t], context) for t in running}
            h[:] = [moved.get(t, x) for t, x in enumerate(h)]
        return depth[1:]

    def walk_none(self, h: list[Floats]) -> list[int]:
        for name in self.layer_names():
            h[:] = [self.block(name, x, h) for x in h]
        return [self.config.num_recursions] * self.config.num_patches
