-- Takes leases back. KEYS: leases, lives. ARGV: how, workers. Gives {now, end of each one's lease, ...}.
-- "gone": they left for good, and are no dead. "stopped": they serve nothing any more, and may be dead soon.
-- "refused": they did not answer. Their lease is not renewed, but goes on under another name to where it was
-- granted, because until they hear of that they serve: later writes have to wait for that end as well.
local clock = redis.call('TIME')
local answer = { tonumber(clock[1]) * 1000 + math.floor(tonumber(clock[2]) / 1000) }
for position = 2, #ARGV do
  local worker = ARGV[position]
  local ends = redis.call('ZSCORE', KEYS[1], worker) or redis.call('ZSCORE', KEYS[1], '!' .. worker)
  redis.call('ZREM', KEYS[1], worker, '!' .. worker)
  if ends and ARGV[1] == 'refused' then redis.call('ZADD', KEYS[1], ends, '!' .. worker) end
  if ARGV[1] == 'gone' then redis.call('ZREM', KEYS[2], worker) end
  answer[#answer + 1] = math.floor(tonumber(ends or 0))
end
return answer
