-- Change a quota's counter by hand. KEYS[1] the counter; ARGV amount to add or 'reset', end of its period in
-- microseconds. Reply: what is used now. Zero is written, never deleted: a missing counter is restored from
-- what workers remember.
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000000 + tonumber(time[2])
local used = 0
if ARGV[1] ~= 'reset' then used = tonumber(redis.call('GET', KEYS[1]) or 0) + tonumber(ARGV[1]) end
local ttl = math.max(1000, math.ceil((tonumber(ARGV[2]) - now) / 1000) + 172800000)
redis.call('SET', KEYS[1], string.format('%.0f', used), 'PX', ttl)
return used
