"""The wardmesh command: starts the mesh on one machine, shows its state, verifies its ledger."""
