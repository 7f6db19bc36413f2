-- KEYS: leases, lives. ARGV: whether it goes for good, workers.
-- Without their lease they serve nothing from memory after it ends; gone for good they are no dead either.
for position = 2, #ARGV do
  redis.call('ZREM', KEYS[1], ARGV[position])
  if ARGV[1] == '1' then redis.call('ZREM', KEYS[2], ARGV[position]) end
end
return 1
