-- Keeps an answer, if nothing it depends on has moved since its fetch began.
-- KEYS: epochs, marks, entry, lease, index, sizes.
-- ARGV: token, generation, types, vector, entry, ttl ms, ms to keep beyond, digest, size, account's bytes,
--       what it is, feed channel, prefix of entry names.
-- Gives {word, now, evicted}.

settle_marks()
local types, digest, size, room = ARGV[3], ARGV[8], tonumber(ARGV[9]), tonumber(ARGV[10])
local outcome, evicted = 'stored', 0
local state, begun = vector(types, ARGV[2], ARGV[1])
if begun ~= ARGV[4] then
  outcome = 'moved'
elseif held_back(types) > 0 then
  outcome = 'write-open'
elseif size > room then
  outcome = 'too-large'
end

if outcome == 'stored' then
  for _, one in ipairs(redis.call('ZRANGEBYSCORE', KEYS[5], '-inf', now_ms, 'LIMIT', 0, 100)) do
    forget(KEYS[5], KEYS[6], one)
  end
  forget(KEYS[5], KEYS[6], digest)
  local used = tonumber(redis.call('HGET', KEYS[6], '#bytes') or 0)
  while used + size > room do
    local oldest = redis.call('ZRANGE', KEYS[5], 0, 0)[1]
    if not oldest then break end
    redis.call('DEL', ARGV[13] .. oldest)
    forget(KEYS[5], KEYS[6], oldest)
    evicted = evicted + 1
    used = tonumber(redis.call('HGET', KEYS[6], '#bytes') or 0)
  end
  local life = tonumber(ARGV[6]) + tonumber(ARGV[7])
  local times = string.format('%013d%013d', now_ms, now_ms + tonumber(ARGV[6]))
  redis.call('SET', KEYS[3], state .. '\n' .. times .. ARGV[5], 'PX', life)
  redis.call('ZADD', KEYS[5], now_ms + life, digest)
  redis.call('HSET', KEYS[6], digest, size .. ' ' .. ARGV[11])
  redis.call('HINCRBY', KEYS[6], '#bytes', size)
  for position = 5, 6 do
    if redis.call('PTTL', KEYS[position]) < life then redis.call('PEXPIRE', KEYS[position], life + 60000) end
  end
  redis.call('PEXPIRE', KEYS[1], EPOCH_LIFE_MS)
end
release(KEYS[4], ARGV[1], ARGV[12], digest)
return { outcome, now_ms, evicted }
