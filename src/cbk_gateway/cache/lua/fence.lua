-- Fetches under way for an account will not be kept; what is kept stays as good as it is.
-- KEYS: epochs, marks.
redis.call('HINCRBY', KEYS[1], '#fence', 1)
redis.call('PEXPIRE', KEYS[1], EPOCH_LIFE_MS)
return now_ms
