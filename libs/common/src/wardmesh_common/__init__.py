"""Words, contracts and the bus that every wardmesh service shares; it knows no service (AR-9)."""
