-- Take up an attempt at a write, or learn that an earlier one stands in its way.
-- KEYS: the record. ARGV: owner, fingerprint, milliseconds the owner is believed alive, life of the record.
-- Returns {word, owner or reason}: proceed, conflict, answered, running, resolve.
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
local seen = redis.call('HMGET', KEYS[1], 'state', 'fingerprint', 'owner', 'until', 'why')
local word, more = 'proceed', ''
if seen[1] then
  if seen[2] ~= ARGV[2] then
    return { 'conflict', '' }
  end
  if seen[1] == 'answered' then
    return { 'answered', seen[3] }
  end
  if seen[1] == 'running' and tonumber(seen[4]) >= now then
    return { 'running', seen[3] }
  end
  -- It failed, or whoever ran it is gone: nobody knows whether it was done.
  word, more = 'resolve', seen[5] or 'vanished'
end
redis.call('DEL', KEYS[1])
redis.call('HSET', KEYS[1], 'state', 'running', 'fingerprint', ARGV[2], 'owner', ARGV[1],
  'until', string.format('%d', now + tonumber(ARGV[3])))
redis.call('PEXPIRE', KEYS[1], ARGV[4])
return { word, more }
