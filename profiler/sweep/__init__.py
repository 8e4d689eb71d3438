"""Sweeps: grids of engine starts, planned before anything is started, held in random blocks by this machine
or a Ray cluster, and gone on with by the same command whatever ended it."""
