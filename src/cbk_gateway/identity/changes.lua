-- What changed since a version; everything, if that cannot be told.
-- KEYS: records, order, state   ARGV: version known, epoch known (empty: none), a fresh epoch name
-- Answers {epoch, version, 1 if complete, records}.
redis.call('HSETNX', KEYS[3], 'epoch', ARGV[3])
local state = redis.call('HMGET', KEYS[3], 'epoch', 'version', 'floor')
local epoch, version, floor = state[1], tonumber(state[2] or '0'), tonumber(state[3] or '0')
local since = tonumber(ARGV[1])
if epoch ~= ARGV[2] or since < floor or since > version then
  return {epoch, version, 1, redis.call('HVALS', KEYS[1])}
end
local ids = redis.call('ZRANGEBYSCORE', KEYS[2], '(' .. since, '+inf')
local found = {}
for _, id in ipairs(ids) do
  local record = redis.call('HGET', KEYS[1], id)
  if record then
    found[#found + 1] = record
  end
end
return {epoch, version, 0, found}
