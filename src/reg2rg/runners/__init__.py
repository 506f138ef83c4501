"""Who works on jobs: this machine, or a cluster through submitit or Ray.

A `Job` comes in, plain data that can be sent to another machine, and an `Outcome` comes out. Nothing here knows what a
job is about. Read `base` first. Importing this package registers every built-in runner and needs no package of theirs.
"""

from reg2rg.runners.base import RUNNERS, Job, Outcome, Runner, Stop
from reg2rg.runners.local import Local
from reg2rg.runners.process import Command
from reg2rg.runners.ray import Ray
from reg2rg.runners.slurm import Slurm

__all__ = ["RUNNERS", "Command", "Job", "Local", "Outcome", "Ray", "Runner", "Slurm", "Stop"]
