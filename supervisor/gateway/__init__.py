"""The gateway: a process that tells over HTTP what all others count and how they are. It reads only, and nobody waits for it."""
