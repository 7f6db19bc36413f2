-- A write ended, or everything of these types is to be dropped. KEYS: epochs, marks.
-- ARGV: kind, id ("" for none), types. Gives whether the mark stood to the end.
local stood = 0
if ARGV[2] ~= '' then stood = redis.call('ZREM', KEYS[2], ARGV[1] .. ' ' .. ARGV[2] .. ' ' .. ARGV[3]) end
settle_marks()
bump(ARGV[3])
return stood
