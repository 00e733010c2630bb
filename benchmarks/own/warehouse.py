"""RWARE: robots that carry requested shelves to the counter and back, and see only the cells around them.

Environment: rware 2.0.0 (Papoudakis et al., NeurIPS 2021 Datasets and Benchmarks). Its clock is a time-out here.
"""

from offmarl.benchmarks.frames import warehouse
from offmarl.benchmarks.own import OwnTask


class Warehouse(OwnTask):
    """What the tasks share: the smallest warehouse, and a reward of 1 for each shelf that was asked for."""

    title = "RWARE"
    limit = 500
    reward = "sum"
    packages = ("rware",)

    def make(self):
        """One warehouse."""
        import gymnasium
        import rware  # noqa: F401 - registers its environments

        kind = self.name.split("/")[1]
        return gymnasium.make(f"rware-{kind}-v2", disable_env_checker=True).unwrapped

    def scene(self, env):
        """What stays. How it is drawn is no part of what makes a run stale."""
        return warehouse.scene(env)

    def frame(self, env):
        """What changes."""
        return warehouse.frame(env)


class TwoRobots(Warehouse):
    """Two robots, two requests at a time."""

    name = "rware/tiny-2ag"
    sizes = {"agents": 2, "obs": 71, "state": 142, "actions": 5, "discrete": True}


class FourRobots(Warehouse):
    """Four robots, four requests at a time."""

    name = "rware/tiny-4ag"
    sizes = {"agents": 4, "obs": 71, "state": 284, "actions": 5, "discrete": True}
