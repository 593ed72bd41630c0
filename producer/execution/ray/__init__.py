"""The Ray engine."""

import os
import secrets

# Read when Ray is imported: it would report its use; and a cluster started here admits only holders of its token,
# which otherwise would be written into the home directory.
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
if os.environ.get("RAY_ADDRESS", "local") == "local":
    os.environ.setdefault("RAY_AUTH_MODE", "token")
    os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
