-- Tells every worker what is old now. KEYS: leases. ARGV: feed channel, message, worker that says it.
-- Gives {now, worker, end of its lease, ...}: whoever may be serving from memory and has to answer.
local clock = redis.call('TIME')
local now_ms = tonumber(clock[1]) * 1000 + math.floor(tonumber(clock[2]) / 1000)
redis.call('PUBLISH', ARGV[1], ARGV[2])
local answer = { now_ms }
local live = redis.call('ZRANGEBYSCORE', KEYS[1], now_ms, '+inf', 'WITHSCORES')
for position = 1, #live, 2 do
  if live[position] ~= ARGV[3] then
    answer[#answer + 1] = live[position]
    answer[#answer + 1] = math.floor(tonumber(live[position + 1]))
  end
end
return answer
