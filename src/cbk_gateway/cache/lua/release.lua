-- Gives back the right to fetch.
-- KEYS: epochs, marks, lease. ARGV: token, feed channel, digest.
release(KEYS[3], ARGV[1], ARGV[2], ARGV[3])
return 1
