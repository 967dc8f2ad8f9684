"""Short texts on a CPU, without padding: the only place that knows of it. Trainings and labellings switch it on."""
