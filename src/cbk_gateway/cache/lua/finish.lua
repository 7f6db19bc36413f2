-- A write ended, or everything of these types is to be dropped. KEYS: epochs, marks.
-- ARGV: kind, id ("" for none), types.
settle_marks()
bump(ARGV[3])
if ARGV[2] ~= '' then redis.call('ZREM', KEYS[2], ARGV[1] .. ' ' .. ARGV[2] .. ' ' .. ARGV[3]) end
return now_ms
