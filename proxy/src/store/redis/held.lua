-- What a process works on, as a lease that it renews. The clock is the server's.
--
-- KEYS[1]: the lease. ARGV: what to do, and how long a lease lasts (ms).
--
-- hold: the process works on it for another lease. Returns 1 if another process asks it to end, or 0.
-- held: returns 1 if a process works on it, or 0.
-- end: asks the process that works on it to end. Returns 0 if none does.
-- release: the process has finished.
local what, lease = ARGV[1], ARGV[2]
if what == 'hold' then
  if redis.call('GET', KEYS[1]) == 'end' then
    redis.call('PEXPIRE', KEYS[1], lease)
    return 1
  end
  redis.call('SET', KEYS[1], 'held', 'PX', lease)
  return 0
end
if what == 'held' then
  return redis.call('EXISTS', KEYS[1])
end
if what == 'end' then
  if redis.call('EXISTS', KEYS[1]) == 0 then
    return 0
  end
  redis.call('SET', KEYS[1], 'end', 'KEEPTTL')
  return 1
end
return redis.call('DEL', KEYS[1])
