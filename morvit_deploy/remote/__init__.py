"""Remote devices over OpenSSH: a connection, the agent's archive, and a session with it."""
