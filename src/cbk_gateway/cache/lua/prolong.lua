-- Keeps the right to fetch for one more lease. KEYS: epochs, marks, lease. ARGV: token, lease ms.
local lease = redis.call('GET', KEYS[3])
if lease and string.match(lease, '^.(%S+) ') == ARGV[1] then
  return redis.call('PEXPIRE', KEYS[3], ARGV[2])
end
return 0
