"""Execution of jobs in separate processes, on this machine or on a Slurm cluster, without Hydra and torch."""

__all__ = ["Job", "LocalPool", "SlurmQueue", "SlurmRequest"]

from mm.launch.job import Job
from mm.launch.local import LocalPool
from mm.launch.slurm import SlurmQueue, SlurmRequest
