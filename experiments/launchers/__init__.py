"""Who computes the cells of a sweep: processes of this machine, Ray, Slurm.

A task is a cell with its table and preset. Whoever performs it does what `trajclust run` does: records, leases and
checkpoints are in the results folder, so that any mix of launchers, machines and plain runs shares the cells out.
"""
