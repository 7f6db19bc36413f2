-- What the scripts over the register of leases begin with: the clock, how far the register can be trusted, and
-- how the workers in it are told. The birth of a register is "<run id> <since ms> <how>".
local clock = redis.call('TIME')
local now_ms = tonumber(clock[1]) * 1000 + math.floor(tonumber(clock[2]) / 1000)

-- A register that was lost names nobody, although workers may hold leases from before: for one more lease a
-- writer has to reckon with those it cannot see. After a flush they are still subscribed and can be counted;
-- after a restart or a failover they may not have noticed yet, so there is nothing to count.
local function doubt(birth, lease_ms)
  local server = redis.call('INFO', 'server')
  local run_id = string.match(server, 'run_id:(%x+)') or ''
  local known, since, how = string.match(redis.call('GET', birth) or '', '^(%x*) (%d+) (%a+)$')
  if known ~= run_id then
    local uptime_ms = tonumber(string.match(server, 'uptime_in_seconds:(%d+)') or '0') * 1000
    how = (known or uptime_ms < lease_ms + 1000) and 'restart' or 'flush'
    since = now_ms
    redis.call('SET', birth, run_id .. ' ' .. string.format('%d', now_ms) .. ' ' .. how)
  end
  local ends = tonumber(since) + lease_ms
  if ends <= now_ms then return '', 0 end
  return how, ends
end

-- Tells every worker what is old now. Gives {now, how many heard it, doubt, end of the doubt, worker, end of its
-- lease, ...}: whoever may be serving from memory and has to answer. The name of a refused one begins with "!".
local function announce(register, birth, feed, message, writer, lease_ms)
  local how, ends = doubt(birth, lease_ms)
  local answer = { now_ms, redis.call('PUBLISH', feed, message), how, ends }
  local live = redis.call('ZRANGEBYSCORE', register, now_ms, '+inf', 'WITHSCORES')
  for position = 1, #live, 2 do
    if live[position] ~= writer and live[position] ~= '!' .. writer then
      answer[#answer + 1] = live[position]
      answer[#answer + 1] = math.floor(tonumber(live[position + 1]))
    end
  end
  return answer
end
