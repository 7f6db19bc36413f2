-- One decision over several limits at once: all of them are drawn on, or none. The clock is the server's.
--
-- KEYS  buckets, then quotas, then slots; on a Cluster all of one hash tag.
-- ARGV  worker, number of buckets, of quotas, of slots, lease life in microseconds; then
--       per bucket: rate per second, burst, cost, extra wanted, shadow 0/1, given back, closed lease, epoch of
--                   that lease, known tokens, known at (microseconds, -1: unknown), ceiling (-1: none)
--       per quota:  limit, amount, enforced 0/1, floor, start and end of the period in microseconds,
--                   correction, extra wanted, top (no extra beyond it), part (an extra is one part of the room),
--                   lost 0/1 (whether the floor counts even where there is a counter)
--       per slot:   most, own kept now, entry life in microseconds, wanted 0/1, number of this question,
--                   extra wanted, part
-- Reply {verdict, now, kind, index, wait in microseconds, bucket triples (tokens, extra, missed)...,
--        quota pairs (used, extra)..., slot pairs (open, extra)...}; verdict 1 admitted, 0 refused, -1 a
--        quota's period is over.
--
-- Corrections and what is given back are entered whatever the verdict. Extras are counted as used, or as
-- open, from now on: who got them may use them without asking, so nobody else can have them meanwhile.
--
-- A bucket is five doubles: tokens, at, lease epoch, leased in this epoch, leased in the one before.
-- Leased tokens may be spent until the end of their life, so the bucket refills only to burst - leased:
-- whatever was taken early can never be spent on top of a full bucket.

local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000000 + tonumber(time[2])
local worker = ARGV[1]
local bucket_count, quota_count, slot_count = tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local lease_life = tonumber(ARGV[5])
local epoch_now = math.floor(now / lease_life)
local LONGEST_TTL_MS = 31622400000

local cursor = 5
local function next_number()
  cursor = cursor + 1
  return tonumber(ARGV[cursor])
end

local function load_bucket(key)
  local b = {
    key = key, rate = next_number(), burst = next_number(), cost = next_number(), want = next_number(),
    shadow = next_number() == 1, back = next_number(),
  }
  local closed, closed_epoch = next_number(), next_number()
  local known_tokens, known_at, ceiling = next_number(), next_number(), next_number()
  local raw = redis.call('GET', key)
  if raw then
    b.tokens, b.at, b.epoch, b.leased, b.leased_before = struct.unpack('<ddddd', raw)
  elseif known_at >= 0 then
    -- The key is gone. If it merely expired, this refills to the brim; if the server lost it, it does not.
    b.tokens, b.at, b.epoch, b.leased, b.leased_before = known_tokens, known_at, epoch_now, 0, 0
  else
    b.tokens, b.at, b.epoch, b.leased, b.leased_before = b.burst, now, epoch_now, 0, 0
  end
  -- A clock that went back (another node took over) neither refills nor drains: `at` never moves back. Until
  -- leases end the bucket fills only to what they leave, and they end with the epoch after their own.
  local function fill(till, leased)
    if till > b.at then
      local brim = math.max(0, b.burst - leased)
      b.tokens = math.min(brim, b.tokens + (till - b.at) * b.rate / 1000000)
      b.at = till
    end
  end
  fill(math.min(now, (b.epoch + 1) * lease_life), b.leased + b.leased_before)
  fill(math.min(now, (b.epoch + 2) * lease_life), b.leased)
  fill(now, 0)
  if epoch_now == b.epoch + 1 then
    b.epoch, b.leased_before, b.leased = epoch_now, b.leased, 0
  elseif epoch_now > b.epoch then
    b.epoch, b.leased_before, b.leased = epoch_now, 0, 0
  end
  if closed_epoch == b.epoch then
    b.leased = math.max(0, b.leased - closed)
  elseif closed_epoch == b.epoch - 1 then
    b.leased_before = math.max(0, b.leased_before - closed)
  end
  b.brim = math.max(0, b.burst - (b.leased + b.leased_before))
  b.tokens = math.min(b.brim, b.tokens + b.back)
  if ceiling >= 0 then b.tokens = math.min(b.tokens, ceiling) end
  b.must_save = b.back > 0 or closed > 0 or ceiling >= 0
  b.need = math.min(b.cost, b.burst)
  b.missed = b.tokens < b.need
  return b
end

-- Until the tokens are really there: they come only up to the brim, and the brim rises as leases end.
local function wait_for(b)
  local tokens, at = b.tokens, math.max(now, b.at)
  local stages = {
    {(b.epoch + 1) * lease_life, b.brim},
    {(b.epoch + 2) * lease_life, math.max(0, b.burst - b.leased)},
  }
  for _, stage in ipairs(stages) do
    if b.need <= stage[2] then break end
    if stage[1] > at then
      tokens = math.min(stage[2], tokens + (stage[1] - at) * b.rate / 1000000)
      at = stage[1]
    end
  end
  return math.max(1, at - now + math.ceil((b.need - tokens) / b.rate * 1000000))
end

local function save_bucket(b)
  -- Longer than an empty bucket takes to fill: an expired key and a full bucket are the same thing.
  local ttl = math.min(LONGEST_TTL_MS, math.ceil(b.burst / b.rate * 1000) + 60000)
  redis.call('SET', b.key, struct.pack('<ddddd', b.tokens, b.at, b.epoch, b.leased, b.leased_before), 'PX', ttl)
end

local function load_slot(key)
  local s = {
    key = key, most = next_number(), own = next_number(), life = next_number(), wanted = next_number() == 1,
    number = next_number(), want = next_number(), part = next_number(), late = false,
  }
  local others = 0
  local entries = redis.call('HGETALL', key)
  for i = 1, #entries, 2 do
    local count, expires, number = string.match(entries[i + 1], '^(%d+) (%d+) ?(%d*)$')
    if tonumber(expires) <= now then
      redis.call('HDEL', key, entries[i])
    elseif entries[i] ~= worker then
      others = others + tonumber(count)
    elseif tonumber(number) and tonumber(number) > s.number then
      -- A later question of this worker overtook this one, and counted its request already.
      s.own, s.late = tonumber(count), true
    end
  end
  s.open = others + s.own
  return s
end

local buckets, quotas, slots = {}, {}, {}
for i = 1, bucket_count do buckets[i] = load_bucket(KEYS[i]) end
for i = 1, quota_count do
  local q = {
    key = KEYS[bucket_count + i], limit = next_number(), amount = next_number(), enforced = next_number() == 1,
    floor = next_number(), from = next_number(), to = next_number(), correction = next_number(),
    want = next_number(), top = next_number(), part = next_number(),
  }
  local is_lost = next_number() == 1
  if now < q.from or now >= q.to then return {-1, now} end
  q.used = tonumber(redis.call('GET', q.key) or q.floor)
  -- Of a store that forgot everything the first to ask may know less than the next.
  if is_lost and q.used < q.floor then
    q.used, q.must_save = q.floor, true
  end
  q.used = q.used + q.correction
  quotas[i] = q
end
for i = 1, slot_count do slots[i] = load_slot(KEYS[bucket_count + quota_count + i]) end

local kind, index, wait = '', 0, 0
for i, b in ipairs(buckets) do
  if b.missed and not b.shadow then
    local longer = wait_for(b)
    if longer > wait then kind, index, wait = 'rate', i, longer end
  end
end
for i, s in ipairs(slots) do
  if s.wanted and not s.late and s.open + 1 > s.most and kind == '' then kind, index, wait = 'slot', i, 1000000 end
end
local longest_quota = 0
for i, q in ipairs(quotas) do
  if q.enforced and q.amount > 0 and q.used + q.amount > q.limit and q.to - now > longest_quota then
    longest_quota = q.to - now
    kind, index, wait = 'quota', i, longest_quota
  end
end
local admitted = kind == ''

local reply = {admitted and 1 or 0, now, kind, index, wait}
for _, b in ipairs(buckets) do
  local extra = 0
  if admitted and not b.missed then
    b.tokens = b.tokens - b.need
    extra = math.max(0, math.min(b.want, math.floor(b.tokens)))
    b.tokens = b.tokens - extra
    b.leased = b.leased + extra
    b.must_save = b.must_save or b.need > 0 or extra > 0
  end
  if b.must_save then save_bucket(b) end
  reply[#reply + 1] = string.format('%.17g', b.tokens)
  reply[#reply + 1] = extra
  reply[#reply + 1] = b.missed and 1 or 0
end
for _, q in ipairs(quotas) do
  local extra = 0
  if admitted then
    q.used = q.used + q.amount
    extra = math.max(0, math.min(q.want, math.floor((q.top - q.used) / q.part)))
    q.used = q.used + extra
  end
  if admitted or q.correction ~= 0 or q.must_save then
    -- Two days more than the period, so that yesterday can still be shown.
    redis.call('SET', q.key, string.format('%.0f', q.used), 'PX', math.ceil((q.to - now) / 1000) + 172800000)
  end
  reply[#reply + 1] = q.used
  reply[#reply + 1] = extra
end
for _, s in ipairs(slots) do
  local own, extra = s.own, 0
  if not s.late then
    if admitted and s.wanted then
      own, s.open = own + 1, s.open + 1
      extra = math.max(0, math.min(s.want, math.floor((s.most - s.open) / s.part)))
      own, s.open = own + extra, s.open + extra
    end
    if own > 0 then
      redis.call('HSET', s.key, worker, string.format('%d %.0f %d', own, now + s.life, s.number))
      redis.call('PEXPIRE', s.key, math.ceil(s.life / 1000) + 60000)
    else
      redis.call('HDEL', s.key, worker)
    end
  end
  reply[#reply + 1] = s.open
  reply[#reply + 1] = extra
end
return reply
