-- Record how an attempt ended, or that it still runs. Only its owner may.
-- KEYS: the record, the answer. ARGV: owner, verdict (running, answered, failed, dropped), keyed (1 or 0),
-- milliseconds the record lives on, milliseconds the answer lives, the answer or the reason.
if redis.call('HGET', KEYS[1], 'owner') ~= ARGV[1] then
  return 0
end
if ARGV[2] == 'running' then
  local clock = redis.call('TIME')
  local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
  redis.call('HSET', KEYS[1], 'until', string.format('%d', now + tonumber(ARGV[5])))
elseif ARGV[2] == 'answered' then
  redis.call('SET', KEYS[2], ARGV[6], 'PX', ARGV[5])
  if ARGV[3] == '1' then
    redis.call('HSET', KEYS[1], 'state', 'answered')
  else
    -- A second, deliberate write of the same content is free to go.
    redis.call('DEL', KEYS[1])
    return 1
  end
elseif ARGV[2] == 'failed' then
  redis.call('HSET', KEYS[1], 'state', 'failed', 'why', ARGV[6])
else
  redis.call('DEL', KEYS[1])
  return 1
end
redis.call('PEXPIRE', KEYS[1], ARGV[4])
return 1
