-- One look at an answer: its entry if that is good, else the right to fetch it, else whom to wait for.
-- KEYS: epochs, marks, entry, lease.
-- ARGV: token, generation, types, lease ms (0: take no lease).
-- Gives {word, now, vector to keep under, entry, mark level, holder}.

settle_marks()
local level = held_back(ARGV[3])
if level == 2 then return { 'held', now_ms, '', '', level, '' } end
local state, begun = vector(ARGV[3], ARGV[2], ARGV[1])
if not state then return { 'behind', now_ms, '', '', level, '' } end

local entry = redis.call('GET', KEYS[3])
if entry and string.sub(entry, 1, #state + 1) ~= state .. '\n' then entry = false end
if entry then
  local fresh_until = tonumber(string.sub(entry, #state + 15, #state + 27))
  entry = string.sub(entry, #state + 2)
  if fresh_until > now_ms then return { 'hit', now_ms, begun, entry, level, '' } end
end
if ARGV[4] == '0' then return { 'miss', now_ms, begun, entry or '', level, '' } end

local lease = redis.call('GET', KEYS[4])
if lease then
  local holder, under = string.match(lease, '^.(%S+) (.*)$')
  -- A fetch begun before a write that has ended since must not answer anybody who came after it.
  if under == begun and holder ~= ARGV[1] then
    redis.call('SET', KEYS[4], 'w' .. holder .. ' ' .. under, 'KEEPTTL')
    return { 'wait', now_ms, begun, entry or '', level, holder }
  end
end
redis.call('SET', KEYS[4], 'n' .. ARGV[1] .. ' ' .. begun, 'PX', ARGV[4])
return { 'own', now_ms, begun, entry or '', level, '' }
