-- A write begins and is told of, in this order and with nothing in between: `begin.lua` and `announce.lua`.
-- KEYS: epochs, marks, leases, birth: not for a Cluster, where they lie on different nodes.
-- ARGV: kind, id, lease ms of the mark, types; feed channel, message, worker that says it, lease ms.
begin(ARGV[1], ARGV[2], ARGV[3], ARGV[4])
return announce(KEYS[3], KEYS[4], ARGV[5], ARGV[6], ARGV[7], tonumber(ARGV[8]))
