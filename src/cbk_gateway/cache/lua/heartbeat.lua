-- A worker says that it lives, and asks to hear itself on its own channel.
-- KEYS: leases (who may serve from memory, until when), birth, lives (who was heard when), generation.
-- ARGV: worker, lease ms, death ms, channel, beat number, lease wanted: "join", "renew" or "none".
-- Gives {whether its lease goes on, generation, now}.
doubt(KEYS[2], tonumber(ARGV[2]))
redis.call('ZADD', KEYS[3], now_ms, ARGV[1])
local dead = redis.call('ZRANGEBYSCORE', KEYS[3], '-inf', now_ms - tonumber(ARGV[3]))
if #dead > 0 then
  redis.call('ZREM', KEYS[3], unpack(dead))
  for _, worker in ipairs(dead) do redis.call('ZREM', KEYS[1], worker, '!' .. worker) end
end
-- A worker that vanished may have written while it could not say so: nothing of before counts any more.
-- Starting from the clock, no generation comes twice, even after a flush.
local generation = tonumber(redis.call('GET', KEYS[4]) or 0)
if #dead > 0 or generation == 0 then
  generation = math.max(generation + 1, now_ms)
  redis.call('SET', KEYS[4], string.format('%d', generation))
end
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now_ms)
-- A lease that ended or was refused is not renewed: the worker must drop its copies first, then join.
local goes_on = ARGV[6] == 'join' or (ARGV[6] == 'renew' and redis.call('ZSCORE', KEYS[1], ARGV[1]))
-- One that joins, or does not listen, has dropped them: no lease of it from before counts.
if ARGV[6] ~= 'renew' then redis.call('ZREM', KEYS[1], ARGV[1], '!' .. ARGV[1]) end
if goes_on then redis.call('ZADD', KEYS[1], now_ms + tonumber(ARGV[2]), ARGV[1]) end
redis.call('PUBLISH', ARGV[4], 'B ' .. ARGV[5])
return { goes_on and 1 or 0, generation, now_ms }
