"""Several worker processes on one port: started, watched, rolled, added up, and ended together.

supervisor.py  the process that `serve` runs: ports, store, signals, service manager
fleet.py       the workers: as many as wanted, each with the settings in force
process.py     one worker, seen from outside
worker.py      one worker, seen from inside: the program that the supervisor starts
launch.py      what a worker is told at its start
control.py     what a worker answers its supervisor
shares.py      who accepts on which socket
backoff.py     when a dead worker is started again
reloading.py   settings read again: refused, tenants only, or rolled
changes.py     what differs between two settings, without secrets
front.py       the operators' port of all workers
summing.py     the metrics of all workers
notify.py      the service manager

No request passes through the supervisor, and it never imports a running loop into a worker: workers are fresh
interpreters that inherit sockets.
"""
