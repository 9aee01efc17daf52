"""Programs that start training elsewhere, around the same entry points: TPU VMs, SLURM, GKE, one machine."""
