"""MAC-Flow's update here and in JAX, on one core: the yardstick of what an update costs.

    .venv/bin/python tests/tools/bench_peer.py                      # four sizes of networks, about five minutes
    .venv/bin/python tests/tools/bench_peer.py --hidden 512x4       # one size
    .venv/bin/python tests/tools/bench_peer.py --check              # both take the same steps: the largest difference

The peer is the update of the authors' code without its recurrent encoder, written here from the equations: jitted as a
whole, with draws and the gather of the batch inside. Ours is the variant `released`: equal networks, rows and number of
operations. Each measurement runs in a process of its own, pinned to one core; the two sides take turns.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from functools import partial
from typing import Any

SIZES = "64x2,128x2,256x4,512x4"
TASK = "smac/3m:good"


def job(hidden: list[int], batch: int):
    """The job that both sides train."""
    from offmarl.experiments.grid.config import parse_overrides
    from offmarl.experiments.grid.jobs import Request, jobs

    sizes = parse_overrides([f"all.hidden={hidden}", f"all.batch_size={batch}"])
    request = Request("smac", "paper", algorithms=["mac_flow"], tasks=[TASK], seeds=[0], variant="released")
    return jobs(Request(**{**vars(request), "overrides": sizes}))[0]


def layers(mlp) -> dict[str, list]:
    """The weights of one of our perceptrons as arrays with a leading axis for its groups."""
    import jax.numpy as jnp

    found = {"weights": [jnp.array(layer.weight.detach().numpy()) for layer in mlp.layers]}
    found["biases"] = [jnp.array(layer.bias.detach().numpy()) for layer in mlp.layers]
    found["norms"] = [
        (jnp.array(norm.weight.detach().numpy()), jnp.array(norm.bias.detach().numpy())) for norm in mlp.norms or ()
    ]
    return found


def perceptron(net: dict[str, list], x):
    """[N, in] -> [G, N, out]: GELU, then layer normalisation where there is one."""
    import jax
    import jax.numpy as jnp

    for k, (weight, bias) in enumerate(zip(net["weights"], net["biases"])):
        x = jnp.matmul(x, weight) + bias
        if k < len(net["weights"]) - 1:
            x = jax.nn.gelu(x, approximate=False)
            if net["norms"]:
                mean, var = x.mean(-1, keepdims=True), x.var(-1, keepdims=True)
                scale, shift = net["norms"][k]
                x = (x - mean) / jnp.sqrt(var + 1e-5) * scale + shift
    return x


class Peer:
    """The update in JAX, from the weights of our method and the rows of our sampler."""

    def __init__(self, algorithm, sampler):
        import jax
        import jax.numpy as jnp
        import optax

        self.config, self.spec = algorithm.config, algorithm.spec
        nets = {name: layers(algorithm.nets[name].mlp) for name in ("flow", "policy", "critic")}
        self.optimiser = optax.adam(self.config.learning_rate, eps=self.config.adam_epsilon)
        self.state = nets, jax.tree.map(jnp.copy, nets["critic"]), self.optimiser.init(nets)
        names = ("obs", "actions", "rewards", "done", "legal", "rows")
        self.data = {name: jnp.array(getattr(sampler.data, name).numpy()) for name in names}
        self.key = jax.random.key(0)
        self.step = jax.jit(self._step, donate_argnums=0)

    def update(self) -> dict[str, Any]:
        """One update with draws of its own."""
        import jax

        self.key, key = jax.random.split(self.key)
        self.state, losses = self.step(self.state, key, None)
        return jax.block_until_ready(losses)

    def _step(self, state, key, draws):
        """`draws`: the batch's indices and the noises, as --check gives them; None: from the key."""
        import jax
        import optax

        nets, target, moments = state
        draws = self._draw(key) if draws is None else draws
        gradients, losses = jax.grad(self._loss, has_aux=True)(nets, target, draws)
        moves, moments = self.optimiser.update(gradients, moments)
        nets, rate = optax.apply_updates(nets, moves), self.config.polyak
        target = jax.tree.map(lambda slow, fast: slow + rate * (fast - slow), target, nets["critic"])
        return (nets, target, moments), losses

    def _draw(self, key):
        import jax

        shape = (self.config.batch_size, self.spec.agents, self.spec.actions)
        keys = jax.random.split(key, 5)
        index = jax.random.randint(keys[0], shape[:1], 0, len(self.data["rows"]))
        normal = [jax.random.normal(key, shape) for key in keys[1:4]]
        return index, *normal, jax.random.uniform(keys[4], (*shape[:2], 1))

    def _agents(self, net, *inputs):
        """A network of every agent, whose id is its last input: [B, I, *] -> [G, B, I, out]."""
        import jax.numpy as jnp

        B, I = inputs[0].shape[:2]
        ids = jnp.broadcast_to(jnp.eye(I), (B, I, I))
        x = jnp.concatenate([*inputs, ids], -1).reshape(B * I, -1)
        return perceptron(net, x).reshape(-1, B, I, net["weights"][-1].shape[-1])

    def _loss(self, nets, target, draws):
        import jax
        import jax.numpy as jnp

        config, data = self.config, self.data
        index, noise, next_noise, flow_noise, flow_time = draws
        row = data["rows"][index]
        obs, next_obs, legal = data["obs"][row], data["obs"][row + 1], data["legal"][row]
        actions = data["actions"][index]
        hot = jax.nn.one_hot(actions, self.spec.actions)

        def field(x, time):
            return self._agents(nets["flow"], obs, x, time)[0]

        taught = noise
        for k in range(config.flow_steps):
            taught = taught + field(taught, jnp.full_like(noise[..., :1], k / config.flow_steps)) / config.flow_steps
        taught = jax.lax.stop_gradient(taught)
        proposed = self._agents(nets["policy"], next_obs, next_noise)[0].argmax(-1)  # no mask: as the code does it
        next_q = self._agents(target, next_obs)
        next_q = jnp.take_along_axis(next_q, proposed[None, ..., None], -1)[..., 0].mean(0).mean(-1)
        goal = data["rewards"][index].mean(-1) + config.discount * (1.0 - data["done"][index]) * next_q
        q = self._agents(nets["critic"], obs)
        chosen = (q * hot).sum(-1).mean(-1)  # [2, B]
        critic = ((chosen - jax.lax.stop_gradient(goal)) ** 2).mean(1).sum()

        x = flow_noise + flow_time * (hot * config.action_scale - flow_noise)
        flow = ((field(x, flow_time) - (hot * config.action_scale - flow_noise)) ** 2).mean()

        out = self._agents(nets["policy"], obs, noise)[0]
        labels = jnp.where(legal, taught, -jnp.inf).argmax(-1)
        taken = jnp.take_along_axis(jax.nn.log_softmax(out), labels[..., None], -1)
        best = jnp.where(legal, out, -jnp.inf).argmax(-1)
        value = jnp.take_along_axis(jax.lax.stop_gradient(q.mean(0)), best[..., None], -1)
        losses = {"critic": critic, "flow": flow, "distillation": -config.alpha * taken.mean(), "q": -value.mean()}
        return sum(losses.values()), losses


def build(hidden: list[int], batch: int):
    """Our trainer, of which the peer takes weights and rows."""
    import torch

    from offmarl.experiments.training.machine import Host
    from offmarl.experiments.training.method import job_trainer

    torch.set_num_threads(1)
    asked = job(hidden, batch)
    return job_trainer(asked, asked.entry.load()[0], Host())


def measure(side: str, hidden: list[int], batch: int, seconds: float) -> float:
    """Milliseconds of an update: the median, in this process."""
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    trainer = build(hidden, batch)
    update = trainer.update if side == "ours" else Peer(trainer.algorithm, trainer.sampler).update
    for _ in range(5):
        update()
    spent, end = [], time.perf_counter() + seconds
    while time.perf_counter() < end:
        began = time.perf_counter()
        update()
        spent.append(1e3 * (time.perf_counter() - began))
    return statistics.median(spent)


def check(hidden: list[int], batch: int, steps: int = 5) -> float:
    """The largest relative difference of a loss over some steps with equal draws."""
    import jax
    import jax.numpy as jnp
    import numpy as np

    trainer = build(hidden, batch)
    algorithm, peer = trainer.algorithm, Peer(trainer.algorithm, trainer.sampler)
    worst, noises = 0.0, []
    normal, uniform = algorithm.streams.normal, algorithm.streams.uniform
    algorithm.streams.normal = lambda *shape: noises.append(normal(*shape)) or noises[-1]
    algorithm.streams.uniform = lambda *shape: noises.append(uniform(*shape)) or noises[-1]
    for _ in range(steps):
        noises.clear()
        rows = trainer.sampler.sample(batch)
        ours = algorithm.update(rows)
        draws = [jnp.array(each[0].numpy()) for each in (rows.number, *noises)]
        peer.state, theirs = peer.step(peer.state, jax.random.key(0), draws)
        gaps = [abs(float(ours[name][0]) - float(value)) / abs(float(value)) for name, value in theirs.items()]
        worst = max(worst, float(np.max(gaps)))
    return worst


def main() -> None:
    """Print a row for every size: milliseconds of both sides, and their ratio."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--hidden", default=SIZES, help=f"widths x layers (default: {SIZES})")
    options.add_argument("--batch", type=int, default=64, help="transitions of an update (default: 64)")
    options.add_argument("--seconds", type=float, default=4.0, help="of each measurement (default: 4)")
    options.add_argument("--turns", type=int, default=3, help="of each side (default: 3)")
    options.add_argument("--check", action="store_true", help="compare the losses of both sides instead")
    options.add_argument("--side", choices=("ours", "jax"), help=argparse.SUPPRESS)
    args = options.parse_args()
    sizes = [[int(width)] * int(depth) for width, depth in (size.split("x") for size in args.hidden.split(","))]
    if args.side:
        print(json.dumps(measure(args.side, sizes[0], args.batch, args.seconds)))
        return
    if args.check:
        print(f"largest relative difference of a loss: {check(sizes[0], args.batch):.1e}")
        return
    print(f"{'network':>8} {'JAX ms':>8} {'ours ms':>8} {'JAX / ours':>10}")
    for size in sizes:
        name = f"{size[0]}x{len(size)}"
        call = [sys.executable, __file__, "--hidden", name, "--batch", str(args.batch), "--seconds", str(args.seconds)]
        once = partial(subprocess.run, env={**os.environ, "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false"}, text=True)
        spent: dict[str, list[float]] = {"jax": [], "ours": []}
        for _ in range(args.turns):
            for side in spent:
                done = once([*call, "--side", side], capture_output=True, check=True)
                spent[side].append(json.loads(done.stdout.splitlines()[-1]))
        jax, ours = statistics.median(spent["jax"]), statistics.median(spent["ours"])
        print(f"{name:>8} {jax:8.2f} {ours:8.2f} {jax / ours:10.2f}")


if __name__ == "__main__":
    main()
