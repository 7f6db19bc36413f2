-- Look after an attempt that somebody else runs. KEYS: the record, the answer. ARGV: its owner.
-- Returns {word, answer}: answered, running, changed.
local answer = redis.call('GET', KEYS[2])
if answer then
  return { 'answered', answer }
end
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
local seen = redis.call('HMGET', KEYS[1], 'state', 'owner', 'until')
if seen[1] == 'running' and seen[2] == ARGV[1] and tonumber(seen[3]) >= now then
  return { 'running', '' }
end
return { 'changed', '' }
