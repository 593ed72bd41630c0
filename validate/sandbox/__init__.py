"""Read untrusted files in a child process with limits, which may open nothing but the release."""
