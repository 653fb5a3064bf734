"""Who is in a universe on which day: from lists, and by rules."""
