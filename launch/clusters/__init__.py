"""Where a job starts: this machine, torchrun, Slurm, Kubernetes."""
