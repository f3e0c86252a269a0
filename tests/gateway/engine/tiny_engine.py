"""The smallest engine that a supervisor can have trouble with: it listens on a socket and has a child that outlives it.

    tiny_engine.py SOCKET [--deaf] [--stubborn]

--deaf never listens; --stubborn ignores SIGTERM. Like vLLM it binds without unlinking. It prints the number of its
child and the names of its environment variables.
"""

import os
import signal
import socket
import subprocess
import sys
import time

path, options = sys.argv[1], sys.argv[2:]
if "--stubborn" in options:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
child = subprocess.Popen(["sleep", "600"])
print("child", child.pid, flush=True)
print("environment", *sorted(os.environ), flush=True)
if "--deaf" in options:
    time.sleep(600)
with socket.socket(socket.AF_UNIX) as listener:
    listener.bind(path)
    listener.listen()
    while True:
        listener.accept()[0].close()
