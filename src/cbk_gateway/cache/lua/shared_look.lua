-- One copy for all accounts, if enough of them were seen to get the same. KEYS: copy, epoch.
local clock = redis.call('TIME')
local now_ms = tonumber(clock[1]) * 1000 + math.floor(tonumber(clock[2]) / 1000)
local found = redis.call('HMGET', KEYS[1], '#state', '#epoch', '#fresh', '#entry')
local epoch = redis.call('GET', KEYS[2]) or '0'
if found[1] ~= 'shared' or found[2] ~= epoch or tonumber(found[3]) <= now_ms then return { now_ms, '' } end
return { now_ms, found[4] }
