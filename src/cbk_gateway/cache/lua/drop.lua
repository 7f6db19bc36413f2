-- Drops single entries. KEYS: epochs, marks, index, sizes. ARGV: prefix of entry names, digests.
-- Gives how many were there.
local dropped = 0
for position = 2, #ARGV do
  dropped = dropped + redis.call('DEL', ARGV[1] .. ARGV[position])
  forget(KEYS[3], KEYS[4], ARGV[position])
end
return dropped
