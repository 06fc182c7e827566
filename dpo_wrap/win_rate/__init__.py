"""Which answers do judges take? Questions in both orders, replies read, the win rate."""
