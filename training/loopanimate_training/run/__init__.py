"""What a run writes into its folder and shows to people: log, heartbeat, validation loops, report."""
