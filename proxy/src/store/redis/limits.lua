-- The limits of requests, each of which one script decides about, renews and ends. The clock is the server's.
--
-- KEYS: one for each limit. ARGV: what to do, the request's id, how long a lease lasts (ms), which attempt this is; then for each limit its
-- kind, its maximum, its window (ms) and an amount. Kinds: "requests" in a window, "tokens" in a window, "running" at the same time.
--
-- admit: all limits count the request, or none does. The same id is counted once, however often it asks. Returns the number of the limit
--   that refuses (0: admitted), the time until it may admit (ms), and for each limit what is used and when all is free again (ms).
-- renew: the leases last longer; those that were lost with the server's memory are there again.
-- finish: leases are given back. The amount of "tokens" is what was used; an amount of 1 for "requests" takes the request back.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local id, lease, attempt = ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])

local function limit(i)
  local at = 4 * i
  return KEYS[i], ARGV[at + 1], tonumber(ARGV[at + 2]), tonumber(ARGV[at + 3]), tonumber(ARGV[at + 4])
end

-- Tokens are counted in slices of a window, of which each leaves as a whole.
local function slice(window)
  return math.max(1, math.floor(window / 600))
end

local function hold(key, kind, most, window, amount)
  if kind == 'running' then
    redis.call('ZADD', key, now + lease, id)
    redis.call('PEXPIRE', key, lease)
  elseif kind == 'tokens' then
    redis.call('ZADD', key .. ':leases', now + lease, id)
    redis.call('HSET', key .. ':amounts', id, amount)
    redis.call('PEXPIRE', key .. ':leases', lease)
    redis.call('PEXPIRE', key .. ':amounts', lease)
  end
end

if ARGV[1] == 'renew' then
  for i = 1, #KEYS do
    hold(limit(i))
  end
  return {}
end

if ARGV[1] == 'finish' then
  for i = 1, #KEYS do
    local key, kind, _, window, amount = limit(i)
    if kind == 'running' or kind == 'requests' and amount == 1 then
      redis.call('ZREM', key, id)
    elseif kind == 'tokens' then
      redis.call('ZREM', key .. ':leases', id)
      local held = redis.call('HDEL', key .. ':amounts', id)
      -- The second attempt of what was done already finds no lease.
      if amount > 0 and (held == 1 or attempt == 1) then
        redis.call('HINCRBY', key, now - now % slice(window), amount)
        redis.call('PEXPIRE', key, window + slice(window))
      end
    end
  end
  return {}
end

local refusing, wait, standings, counted = 0, 0, {}, {}
for i = 1, #KEYS do
  local key, kind, most, window, amount = limit(i)
  local used, reset, later, fits = 0, 0, 0, true
  if kind == 'running' then
    redis.call('ZREMRANGEBYSCORE', key, '-inf', now)
    used = redis.call('ZCARD', key)
    counted[i] = redis.call('ZSCORE', key, id)
    fits = used < most
  elseif kind == 'requests' then
    redis.call('ZREMRANGEBYSCORE', key, '-inf', now - window)
    used = redis.call('ZCARD', key)
    counted[i] = redis.call('ZSCORE', key, id)
    fits = used < most
    if used > 0 then
      reset = redis.call('ZREVRANGE', key, 0, 0, 'WITHSCORES')[2] + window - now
    end
    if not fits then
      later = redis.call('ZRANGE', key, used - most, used - most, 'WITHSCORES')[2] + window - now
    end
  else
    local slices, fields = {}, redis.call('HGETALL', key)
    for at = 1, #fields, 2 do
      local leaves = fields[at] + slice(window) + window
      if leaves <= now then
        redis.call('HDEL', key, fields[at])
      else
        used = used + fields[at + 1]
        slices[#slices + 1] = { leaves, tonumber(fields[at + 1]) }
        reset = math.max(reset, leaves - now)
      end
    end
    for _, gone in ipairs(redis.call('ZRANGEBYSCORE', key .. ':leases', '-inf', now)) do
      redis.call('ZREM', key .. ':leases', gone)
      redis.call('HDEL', key .. ':amounts', gone)
    end
    for _, reserved in ipairs(redis.call('HVALS', key .. ':amounts')) do
      used = used + reserved
      reset = window
    end
    counted[i] = redis.call('HEXISTS', key .. ':amounts', id) == 1
    local excess = used + math.min(amount, most) - most
    fits = excess <= 0
    if not fits then
      table.sort(slices, function(a, b) return a[1] < b[1] end)
      for _, one in ipairs(slices) do
        if excess > 0 then
          excess = excess - one[2]
          later = one[1] - now
        end
      end
      if excess > 0 then
        later = math.min(window, math.max(later, 1000))
      end
    end
  end
  if refusing == 0 and not fits and not counted[i] then
    refusing, wait = i, later
  end
  standings[2 * i - 1], standings[2 * i] = used, reset
end
if refusing == 0 then
  for i = 1, #KEYS do
    local key, kind, most, window, amount = limit(i)
    if not counted[i] then
      if kind == 'requests' then
        redis.call('ZADD', key, now, id)
        redis.call('PEXPIRE', key, window)
      end
      hold(key, kind, most, window, amount)
      standings[2 * i - 1] = standings[2 * i - 1] + amount
      standings[2 * i] = math.max(standings[2 * i], window)
    end
  end
end
return { refusing, wait, unpack(standings) }
