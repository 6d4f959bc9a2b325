"""What a run costs: time by phase, energy, arithmetic, and the record of all its sessions."""
