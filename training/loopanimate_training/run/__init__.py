"""What a run keeps in its folder and shows to people: log, heartbeat, loops, its page."""
