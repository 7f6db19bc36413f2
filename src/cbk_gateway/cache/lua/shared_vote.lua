-- One account says what it got from the upstream. KEYS: copy, epoch.
-- ARGV: account's fingerprint, print of the answer, entry, ttl ms, quorum, memory ms, silence ms.
-- Gives "watching", "shared" or "off".
local clock = redis.call('TIME')
local now_ms = tonumber(clock[1]) * 1000 + math.floor(tonumber(clock[2]) / 1000)
local found = redis.call('HMGET', KEYS[1], '#state', '#epoch', '#print')
local epoch = redis.call('GET', KEYS[2]) or '0'
if found[2] ~= epoch then
  redis.call('DEL', KEYS[1])
  found = { false, epoch, false }
end
if found[1] == 'off' then return 'off' end
if found[3] and found[3] ~= ARGV[2] then
  -- The first difference ends it, whatever its cause: what differs for one may differ for all.
  redis.call('DEL', KEYS[1])
  redis.call('HSET', KEYS[1], '#state', 'off', '#epoch', epoch)
  redis.call('PEXPIRE', KEYS[1], ARGV[7])
  return 'off'
end
redis.call('HSET', KEYS[1], '#print', ARGV[2], '#epoch', epoch, 'by:' .. ARGV[1], now_ms)
redis.call('PEXPIRE', KEYS[1], ARGV[6])
local voters = 0
for _, field in ipairs(redis.call('HKEYS', KEYS[1])) do
  if string.sub(field, 1, 3) == 'by:' then voters = voters + 1 end
end
if voters < tonumber(ARGV[5]) then return 'watching' end
local fresh = now_ms + tonumber(ARGV[4])
redis.call('HSET', KEYS[1], '#state', 'shared', '#fresh', string.format('%013d', fresh),
  '#entry', string.format('%013d%013d', now_ms, fresh) .. ARGV[3])
return 'shared'
