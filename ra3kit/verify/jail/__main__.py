"""Started by the judge: `python -P -s -S .../verify/jail CONFIG`, CONFIG a JSON object (see `server.main`)."""

import json
import os
import resource
import sys

STACK = 64 << 20

if resource.getrlimit(resource.RLIMIT_STACK)[0] not in (STACK, resource.RLIM_INFINITY):
    # room for deep recursion in C; the place for a stack is laid out when a program is executed, so begin again
    hard = resource.getrlimit(resource.RLIMIT_STACK)[1]
    size = STACK if hard == resource.RLIM_INFINITY else min(STACK, hard)
    if resource.getrlimit(resource.RLIMIT_STACK)[0] < size:
        resource.setrlimit(resource.RLIMIT_STACK, (size, hard))
        os.execve(sys.executable, [sys.executable, "-P", "-s", "-S", *sys.argv], os.environ)

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from jail.server import main  # noqa: E402

main(json.loads(sys.argv[1]))
