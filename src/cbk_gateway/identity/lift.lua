-- Take a revocation back and tell every process.
-- KEYS: records, order, expiries, state (as in revoke.lua)   ARGV: id, channel
-- Answers 1, or 0 if there was none.
if redis.call('HDEL', KEYS[1], ARGV[1]) == 0 then
  return 0
end
redis.call('ZREM', KEYS[2], ARGV[1])
redis.call('ZREM', KEYS[3], ARGV[1])
local version = redis.call('HINCRBY', KEYS[4], 'version', 1)
-- Whoever knows only what was before this version must read everything to notice what is gone.
redis.call('HSET', KEYS[4], 'floor', version)
redis.call('PUBLISH', ARGV[2], version)
return 1
