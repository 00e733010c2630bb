"""Level-Based Foraging: players pick up food together, and in these tasks all of them are needed for each.

Environment: lbforaging 2.0.0 (Papoudakis et al., NeurIPS 2021 Datasets and Benchmarks). Its clock is a time-out here.
"""

from offmarl.benchmarks.frames import foraging
from offmarl.benchmarks.own import OwnTask


class Foraging(OwnTask):
    """What the tasks share. Everybody sees all of the field; the team's rewards add up to 1."""

    title = "LBF"
    limit = 50
    fresh = True  # its reset(seed) looks where the players of the last episode stood
    reward = "sum"
    packages = ("lbforaging",)

    def make(self):
        """One field."""
        import gymnasium
        import lbforaging  # noqa: F401 - registers its environments

        kind = self.name.split("/")[1]
        return gymnasium.make(f"Foraging-{kind}-v3", disable_env_checker=True).unwrapped

    def legal(self, env):
        """Moves onto free cells; loading beside food."""
        allowed = [{action.value for action in env._valid_actions[player]} for player in env.players]
        return [[action in values for action in range(6)] for values in allowed]

    def won(self, env, info):
        """All food is gone."""
        return not env.field.any()

    def scene(self, env):
        """What stays. How it is drawn is no part of what makes a run stale."""
        return foraging.scene(env)

    def frame(self, env):
        """What changes."""
        return foraging.frame(env)


class TwoPlayers(Foraging):
    """Two players, two foods."""

    name = "lbf/8x8-2p-2f-coop"
    sizes = {"agents": 2, "obs": 12, "state": 24, "actions": 6, "discrete": True}


class ThreeFoods(Foraging):
    """Two players, three foods."""

    name = "lbf/8x8-2p-3f-coop"
    sizes = {"agents": 2, "obs": 15, "state": 30, "actions": 6, "discrete": True}


class ThreePlayers(Foraging):
    """Three players, three foods, a larger field."""

    name = "lbf/10x10-3p-3f-coop"
    sizes = {"agents": 3, "obs": 18, "state": 54, "actions": 6, "discrete": True}
