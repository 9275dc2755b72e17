"""Import this first: keeps libraries out of the process that are only wanted by parts of Socket.IO we never use.

engineio imports `requests` and `websocket` if it finds them, for its synchronous client: 6 MB for nothing.
"""

import sys

for _name in ("requests", "websocket"):
    sys.modules.setdefault(_name, None)  # type: ignore[arg-type]  # None makes an import fail, see the import system
