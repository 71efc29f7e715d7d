"""What runs on the other side of the wall: fork server, confinement, the harness around a program, the referee.

Standard library only (numpy where it is installed). The server is started as `python -P -s -S .../verify/jail`, in a
clean environment and with nothing else of the kit in memory: what isn't there can't be stolen.
"""
