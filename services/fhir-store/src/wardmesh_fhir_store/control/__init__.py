"""The control plane: datastores, jobs and tags in the protocol of AWS HealthLake."""
