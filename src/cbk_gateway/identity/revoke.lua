-- Keep a revocation and tell every process. Repeating one may widen it, never narrow it.
-- KEYS: records (hash id -> record), order (zset id -> version), expiries (zset id -> epoch s), state (hash)
-- ARGV: id, record, now (epoch s), channel, a fresh epoch name
-- Answers the record in force.
local records, order, expiries, state = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local id, record, now, channel = ARGV[1], ARGV[2], tonumber(ARGV[3]), ARGV[4]

-- An hour of grace, because gateways' clocks differ; some hundred at a time, because a script blocks all.
local dead = redis.call('ZRANGEBYSCORE', expiries, '-inf', now - 3600, 'LIMIT', 0, 200)
for _, old in ipairs(dead) do
  redis.call('HDEL', records, old)
  redis.call('ZREM', order, old)
  redis.call('ZREM', expiries, old)
end

local new = cjson.decode(record)
local before = redis.call('HGET', records, id)
if before then
  local known = cjson.decode(before)
  local changed = false
  if known.issued_before > new.issued_before then
    new.issued_before = known.issued_before
    changed = true
  end
  if new.expires_at ~= cjson.null and (known.expires_at == cjson.null or known.expires_at > new.expires_at) then
    new.expires_at = known.expires_at
    changed = true
  end
  if changed then
    record = cjson.encode(new)
  end
end

redis.call('HSETNX', state, 'epoch', ARGV[5])
local version = redis.call('HINCRBY', state, 'version', 1)
redis.call('HSET', records, id, record)
redis.call('ZADD', order, version, id)
if new.expires_at == cjson.null then
  redis.call('ZREM', expiries, id)
else
  redis.call('ZADD', expiries, new.expires_at, id)
end
redis.call('PUBLISH', channel, version)
return record
