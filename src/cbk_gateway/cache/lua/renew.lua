-- A write is still open. A mark that is gone (a flush, a lease that ended) stands again, after a bump.
-- KEYS: epochs, marks. ARGV: kind, id, lease ms, types.
local mark = ARGV[1] .. ' ' .. ARGV[2] .. ' ' .. ARGV[4]
local was_there = redis.call('ZSCORE', KEYS[2], mark)
settle_marks()
if not was_there then bump(ARGV[4]) end
redis.call('ZADD', KEYS[2], now_ms + tonumber(ARGV[3]), mark)
return was_there and 1 or 0
