-- What every script over one account begins with: the clock, settled marks, the account's vector.
-- KEYS[1] is its hash of epochs, KEYS[2] its sorted set of marks.

local clock = redis.call('TIME')
local now_ms = tonumber(clock[1]) * 1000 + math.floor(tonumber(clock[2]) / 1000)

-- An idle account's epochs may be forgotten: their next birth is a new one, and nothing of before counts.
local EPOCH_LIFE_MS = 604800000

local function bump(types)
  redis.call('HINCRBY', KEYS[1], '~any', 1)
  for one in string.gmatch(types, '%S+') do
    redis.call('HINCRBY', KEYS[1], one, 1)
  end
  redis.call('PEXPIRE', KEYS[1], EPOCH_LIFE_MS)
end

-- A mark is "<o|s> <id> <types...>": an open-ended or a short write. One whose lease ended belonged to a
-- worker that died: nobody knows what its write did, so it counts as done now.
local function settle_marks()
  local due = redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', now_ms)
  for _, mark in ipairs(due) do
    bump(string.match(mark, '^%S+ %S+ (.*)$'))
    redis.call('ZREM', KEYS[2], mark)
  end
  return #due
end

-- Makes what a write may change old, and leaves its mark.
local function begin(kind, id, lease_ms, types)
  settle_marks()
  bump(types)
  redis.call('ZADD', KEYS[2], now_ms + tonumber(lease_ms), kind .. ' ' .. id .. ' ' .. types)
end

-- Whether writes under way hold back answers: 2 when nothing may be served, 1 when nothing that depends on
-- `types` may be kept, 0 otherwise.
local function held_back(types)
  local level = 0
  for _, mark in ipairs(redis.call('ZRANGE', KEYS[2], 0, -1)) do
    local kind, changed = string.match(mark, '^(%S+) %S+ (.*)$')
    if kind == 'o' then return 2 end
    local padded = ' ' .. changed .. ' '
    for one in string.gmatch('* ' .. types, '%S+') do
      if one == '~any' or string.find(padded, ' ' .. one .. ' ', 1, true) then level = 1 end
    end
  end
  return level
end

-- The state that answers of these types depend on, as one text; false when this worker knows less than the
-- account does. Equal texts mean: no write in between, no flush, no other server, no death of a worker.
-- The second text is what a fetch is begun under: it differs too when single entries were dropped since.
local function vector(types, generation, nonce)
  local fields = { '#born', '#server', '#generation', '#fence', '*' }
  for one in string.gmatch(types, '%S+') do fields[#fields + 1] = one end
  local found = redis.call('HMGET', KEYS[1], unpack(fields))
  local server = string.match(redis.call('INFO', 'server'), 'run_id:(%x+)') or ''
  local known = tonumber(found[3] or -1)
  if known > tonumber(generation) then return false end
  if not found[1] or found[2] ~= server or known < tonumber(generation) then
    found[1] = clock[1] .. '.' .. clock[2] .. '.' .. nonce
    redis.call('HSET', KEYS[1], '#born', found[1], '#server', server, '#generation', generation)
    redis.call('PEXPIRE', KEYS[1], EPOCH_LIFE_MS)
  end
  local parts = { found[1] }
  for position = 5, #fields do parts[#parts + 1] = found[position] or '0' end
  local state = table.concat(parts, ',')
  return state, state .. ';' .. (found[4] or '0')
end

-- Takes an entry out of the books.
local function forget(index, sizes, digest)
  local known = redis.call('HGET', sizes, digest)
  if known then
    redis.call('HINCRBY', sizes, '#bytes', -tonumber(string.match(known, '^%d+')))
    redis.call('HDEL', sizes, digest)
  end
  redis.call('ZREM', index, digest)
end

-- Gives a lease back, and says so on the feed when another worker waits for it.
local function release(lease_key, token, feed, digest)
  local lease = redis.call('GET', lease_key)
  if not lease then return end
  local flag, holder = string.match(lease, '^(.)(%S+) ')
  if holder ~= token then return end
  redis.call('DEL', lease_key)
  if flag == 'w' then redis.call('PUBLISH', feed, 'F ' .. digest) end
end
