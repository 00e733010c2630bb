"""A stand-in for smac, smacv2 and og-marl's fork: their interface as it is, and faults on demand.

It raises where the real packages do: in og-marl's `get_env_info`, through a proxy, with a protobuf other than Python's.

It is copied into packages of those names, so it imports nothing of ours. $STAND_IN is a JSON file of: `log`, where one
line is added for everything that tests ask about; `faults`, {seed: [fault, step]}, where step 0 is the reset; `ends`,
{seed: [step, code]} with 1 for a victory and -1 for a defeat; `info`, sizes that differ; `late`, how often SMAC looks
before the last enemy is there.
"""

import json
import os
import random
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np

# agents, enemies, observation, state, limit
MAPS = {
    "3m": (3, 3, 30, 48, 60),
    "8m": (8, 8, 80, 168, 120),
    "2s3z": (5, 5, 80, 120, 120),
    "5m_vs_6m": (5, 6, 55, 98, 70),
    "2c_vs_64zg": (2, 64, 332, 342, 400),
}
OMIGA_SIZES = {"2c_vs_64zg": (478, 675), "5m_vs_6m": (124, 156)}


class StarCraft2Env:
    def __init__(self, map_name="8m", seed=None, **options):
        with open(os.environ["STAND_IN"]) as file:
            self.plan = json.load(file)
        self.note(made=options, map=map_name, protobuf=os.environ.get("PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION"))
        self.n_agents, self.n_enemies, self.obs_size, self.state_size, self.episode_limit = self.sizes(map_name)
        self.n_actions = 6 + self.n_enemies
        for name, size in self.plan.get("info", {}).items():
            setattr(self, name, size)
        self._seed, self._sc2_proc = seed, None
        self.max_reward, self.agents, self.enemies = self.n_enemies * 10 + 200, {}, {}
        self.marine_id = self.medivac_id = 0
        self.map_x = self.map_y = 0
        self._step_mul = 8
        self._episode_count = self._episode_steps = self.force_restarts = self.timeouts = self.team = 0

    def note(self, **what):
        with open(self.plan["log"], "a") as file:
            file.write(json.dumps({"pid": os.getpid(), **what}, default=vars) + "\n")

    def sizes(self, map_name):
        return MAPS[map_name]

    def get_env_info(self):
        return {
            "state_shape": self.state_size,
            "obs_shape": self.obs_size,
            "n_actions": self.n_actions,
            "n_agents": self.n_agents,
            "episode_limit": self.episode_limit,
        }

    def get_obs_size(self):
        return self.obs_size

    def get_state_size(self):
        return self.state_size

    def _launch(self):
        if any(os.environ.get(name) for name in ("http_proxy", "HTTP_PROXY", "all_proxy")):
            raise ConnectionError("through the proxy no game is reached")
        assert os.environ["PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION"] == "python"
        if not Path(os.environ["SC2PATH"], "Versions").is_dir():
            raise FileNotFoundError("StarCraftII/Versions")
        self._sc2_proc, self.map_x, self.map_y = Process(), 32, 24
        self.note(game=self._sc2_proc.game.pid, seed=self._seed)

    def _look(self):
        """SMAC's init_units: it adds the health of the enemies there are, again and again until all are there."""
        for missing in (*[1] * self.plan.get("late", 0), 0):
            self.marine_id, self.medivac_id = 1970, 1971  # the map's own types; enemies are the game's marines
            self.agents = {k: unit(8, k, self.plan.get("kinds", {}).get(str(k), 1970)) for k in range(self.n_agents)}
            self.enemies = {k: unit(24, k, 48) for k in range(self.n_enemies - missing)}
            self.max_reward += 50 * len(self.enemies) * (self._episode_count == 0)

    def unit_sight_range(self, agent_id):
        return 9

    def _fight(self, actions):
        """As `update_units`: the living are the game's new ones, the dead stay with a health of 0."""
        for agent, action in enumerate(actions):
            own = self.agents[agent] = SimpleNamespace(**vars(self.agents[agent]))
            own.weapon_cooldown = 15.0 if action > 5 else max(0.0, own.weapon_cooldown - 8)
            if action > 5:
                hit = self.enemies[action - 6] = SimpleNamespace(**vars(self.enemies[action - 6]))
                hit.shield, hit.health = 0.0, max(0.0, hit.health - 20)

    def full_restart(self):
        self._sc2_proc.close()
        self._launch()
        self.force_restarts += 1

    def _fault(self):
        fault, step = self.plan.get("faults", {}).get(str(self._seed), ("", 0))
        if not fault or step != self._episode_steps:
            return False
        if fault == "crash":
            self.full_restart()
        elif fault == "raise":
            raise ValueError("websocket\nbroken")
        elif fault == "lost":
            raise FileNotFoundError("StarCraftII/Versions")
        elif fault == "hang":
            time.sleep(600)
        elif fault == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        return fault == "crash"

    def reset(self):
        self._episode_steps = 0
        if self._episode_count == 0:
            self._launch()
        self._look()
        self._fault()
        return self.get_obs(), self.get_state()

    def _advance(self, actions):
        """None where the game crashed, else the reward, whether all is over, and whether it is won."""
        for agent, action in enumerate(actions):
            assert isinstance(action, int)
            assert self.get_avail_agent_actions(agent)[action] == 1, f"Agent {agent} cannot perform action {action}"
        self._episode_steps += 1
        if self._fault():
            return None
        self._fight(actions)
        last, code = self.plan.get("ends", {}).get(str(self._seed), (0, 0))
        over = self._episode_steps == last
        if not over and self._episode_steps >= self.episode_limit:
            self.timeouts += 1
            over, code = True, 0
        self._episode_count += over
        self.note(scale=self.max_reward)
        return self._episode_steps + sum(actions) / 1000, over, over and code == 1

    def step(self, actions):
        if (outcome := self._advance(actions)) is None:
            return 0, True, {}
        reward, over, won = outcome
        return reward, over, {"battle_won": won}

    def get_obs(self):
        return [np.full(self.obs_size, self._episode_steps + agent / 100, np.float32) for agent in range(self.n_agents)]

    def get_state(self):
        return np.full(self.state_size, self.team + self._episode_steps, np.float32)

    def get_avail_agent_actions(self, agent):
        return [0, 1] + [int((agent + self._episode_steps) % 2)] * (self.n_actions - 2)

    def get_avail_actions(self):
        return [self.get_avail_agent_actions(agent) for agent in range(self.n_agents)]

    def close(self):
        if self._sc2_proc:
            self._sc2_proc.close()


def unit(x, y, kind):
    """A unit as the game describes it. The weapons and orders of enemies are not told."""
    place = SimpleNamespace(x=float(x), y=float(y))
    size = {"radius": 0.375, "health": 45.0, "health_max": 45.0, "shield": 5.0, "shield_max": 5.0}
    return SimpleNamespace(unit_type=kind, pos=place, weapon_cooldown=0.0, **size)


class Process:
    """pysc2's: a game with a temporary folder, which it removes if it is closed."""

    def __init__(self):
        self.folder = tempfile.mkdtemp(prefix="sc-")
        self.game = subprocess.Popen(["sleep", "600"])

    def close(self):
        self.game.kill()
        self.game.wait()
        shutil.rmtree(self.folder, ignore_errors=True)


class Distribution:
    def __init__(self):
        self.rng = np.random.default_rng()

    def generate(self):
        return self.rng.integers(1, 10**5)


class Nested:
    def __init__(self):
        self.rng, self.surrounded_distribution, self.p_threshold = np.random.default_rng(), Distribution(), 0.5

    def generate(self):
        return self.rng.integers(1, 10**5) + self.surrounded_distribution.generate()


class Capable(StarCraft2Env):
    """The environment within SMACv2's wrapper."""

    def sizes(self, map_name):
        assert map_name in ("10gen_terran", "10gen_zerg")
        n = self.n
        return n, n, {5: 82, 10: 162}[n], {5: 120, 10: 290}[n], 200


class StarCraftCapabilityEnvWrapper:
    def __init__(self, **kwargs):
        config = kwargs["capability_config"]
        self.env_key_to_distribution_map = {"team_gen": Distribution(), "start_positions": Nested()}
        Capable.n = config["n_units"]
        self.env = Capable(**kwargs)
        for key in ("team_gen", "start_positions"):
            config[key]["env_key"] = key

    def __getattr__(self, name):
        return getattr(self.env, name)

    def reset(self):
        drawn = [distribution.generate() for distribution in self.env_key_to_distribution_map.values()]
        order = list(range(100))
        random.shuffle(order)
        self.env.team = int(sum(drawn)) + order[0]
        self.env.reset()  # and gives nothing back, as after a second attempt

    def get_avail_actions(self):
        avail_actions, true = self.env.get_avail_actions()
        return avail_actions, true


class OmigaEnv(StarCraft2Env):
    """The fork: settings in an object, sizes in lists, results for every agent, and crashes that are not told."""

    def __init__(self, args, seed=None, **options):
        flags = {name: value for name, value in vars(args).items() if name != "map_name"}
        super().__init__(args.map_name, seed, **flags, **options)
        self._seed += 1

    def sizes(self, map_name):
        agents, enemies, _, _, limit = MAPS[map_name]
        return agents, enemies, *OMIGA_SIZES[map_name], limit

    def get_env_info(self):
        return self.get_obs_alone_size()  # which does not exist

    def get_obs_size(self):
        return [self.obs_size, [3, 4]]

    def get_state_size(self):
        return [self.state_size, [1, 2]]

    def get_state(self, agent_id=-1):
        raise AssertionError("this is another state than the data's")

    def get_state_agent(self, agent_id):
        return np.full(self.state_size, self._episode_steps + agent_id / 10, np.float32)

    def reset(self):
        self._episode_steps = 0
        if self._episode_count == 0:
            self._launch()
        self._look()
        self._fault()
        return self.get_obs(), [self.get_state_agent(i) for i in range(self.n_agents)], self.get_avail_actions()

    def step(self, smac_actions):
        reward, over, won = self._advance(smac_actions) or (0, True, False)
        ends = np.full(self.n_agents, over)
        ends[0] = True  # this agent is dead
        infos = [{"won": won, "battles_draw": self.timeouts} for _ in ends]
        states = [self.get_state_agent(i) for i in range(self.n_agents)]
        return self.get_obs(), states, [[reward]] * self.n_agents, ends, infos, self.get_avail_actions()
