-- Tells every worker what is old now. KEYS: leases, birth.
-- ARGV: feed channel, message, worker that says it, lease ms.
-- Gives {now, how many heard it, doubt, end of the doubt, worker, end of its lease, ...}: whoever may be
-- serving from memory and has to answer. The name of a refused one begins with "!".
local how, ends = doubt(tonumber(ARGV[4]))
local answer = { now_ms, redis.call('PUBLISH', ARGV[1], ARGV[2]), how, ends }
local live = redis.call('ZRANGEBYSCORE', KEYS[1], now_ms, '+inf', 'WITHSCORES')
for position = 1, #live, 2 do
  if live[position] ~= ARGV[3] and live[position] ~= '!' .. ARGV[3] then
    answer[#answer + 1] = live[position]
    answer[#answer + 1] = math.floor(tonumber(live[position + 1]))
  end
end
return answer
