-- Who is alive. KEYS[1] a sorted set of workers by last sign of life, KEYS[2] a number that is another
-- one whenever buckets were filled by hand; ARGV worker, silence in microseconds after which a worker counts as
-- dead, leaving 0/1, an instant. Reply {now, number alive, number of them heard of since that instant, the
-- number of KEYS[2]}.
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000000 + tonumber(time[2])
if ARGV[3] == '1' then
  redis.call('ZREM', KEYS[1], ARGV[1])
else
  redis.call('ZADD', KEYS[1], now, ARGV[1])
end
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now - tonumber(ARGV[2]))
redis.call('PEXPIRE', KEYS[1], 600000)
return {now, redis.call('ZCARD', KEYS[1]), redis.call('ZCOUNT', KEYS[1], ARGV[4], '+inf'), tonumber(redis.call('GET', KEYS[2]) or 0)}
