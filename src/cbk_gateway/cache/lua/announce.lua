-- Tells every worker what is old now. KEYS: leases, birth.
-- ARGV: feed channel, message, worker that says it, lease ms.
return announce(KEYS[1], KEYS[2], ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4]))
