-- Stored records of one kind: what store/memory.rs does, on the server. The clock is the server's.
--
-- KEYS[1]: the prefix of the kind's keys. ARGV: what to do, the owner, the maximum number and bytes of records, how long one lasts after its
-- last use (ms; 0: without limit); then what each operation takes. A record is returned as {id, previous, names, body, version}.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local prefix, owner = KEYS[1], ARGV[2]
local most, bytes, ttl = tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])
local order, sizes, counts, total = prefix .. 'order', prefix .. 'bytes', prefix .. 'counts', prefix .. 'total'

local function of(name, who)
  return prefix .. (who or owner) .. ':' .. name
end

local function record(id, who)
  return of('record:' .. id, who)
end

-- Deletes a record; returns when it was created.
local function forget(id, who)
  local key = record(id, who)
  local kept = redis.call('HMGET', key, 'created', 'size', 'names')
  if not kept[1] then
    redis.call('ZREM', order, who .. '/' .. id)
    return false
  end
  for _, name in ipairs(cjson.decode(kept[3])) do
    redis.call('ZREM', of('name:' .. name, who), id)
  end
  redis.call('DEL', key)
  redis.call('ZREM', order, who .. '/' .. id)
  redis.call('ZREM', of('order', who), id)
  redis.call('ZREM', of('created', who), id)
  redis.call('DECRBY', total, kept[2])
  if tonumber(redis.call('ZINCRBY', sizes, -kept[2], who)) <= 0 then
    redis.call('ZREM', sizes, who)
  end
  if tonumber(redis.call('ZINCRBY', counts, -1, who)) <= 0 then
    redis.call('ZREM', counts, who)
  end
  return kept[1]
end

-- Evicts the least recently used record of the owner who has the most.
local function evict(by)
  local largest = redis.call('ZREVRANGE', by, 0, 0)[1]
  local oldest = largest and redis.call('ZRANGE', of('order', largest), 0, 0)[1]
  if not oldest then
    redis.call('DEL', by)
    return false
  end
  return forget(oldest, largest)
end

local function tidy()
  while ttl > 0 do
    local oldest = redis.call('ZRANGEBYSCORE', order, '-inf', now - ttl, 'LIMIT', 0, 1)[1]
    if not oldest then
      break
    end
    local who, id = string.match(oldest, '^([^/]*)/(.*)$')
    forget(id, who)
  end
  while redis.call('ZCARD', order) > most do
    if not evict(counts) then
      break
    end
  end
  while tonumber(redis.call('GET', total) or 0) > bytes do
    if not evict(sizes) then
      break
    end
  end
end

local function touch(id)
  redis.call('ZADD', order, now, owner .. '/' .. id)
  redis.call('ZADD', of('order'), now, id)
end

local function read(id)
  local kept = redis.call('HMGET', record(id), 'previous', 'names', 'body', 'version')
  if not kept[4] then
    return false
  end
  return { id, kept[1], kept[2], kept[3], kept[4] }
end

-- Stores a record: its id, previous one, names (JSON), body, size, and a version that no other has.
local function put(id, previous, names, body, size, version)
  local created = forget(id, owner) or redis.call('INCR', prefix .. 'next')
  redis.call('HSET', record(id), 'created', created, 'size', size, 'previous', previous, 'names', names, 'body', body,
    'version', version)
  redis.call('ZADD', of('created'), created, id)
  for _, name in ipairs(cjson.decode(names)) do
    redis.call('ZADD', of('name:' .. name), created, id)
  end
  redis.call('INCRBY', total, size)
  redis.call('ZINCRBY', sizes, size, owner)
  redis.call('ZINCRBY', counts, 1, owner)
  touch(id)
  tidy()
end

local what = ARGV[1]
if what == 'put' then
  put(ARGV[6], ARGV[7], ARGV[8], ARGV[9], ARGV[10], ARGV[11])
  return {}
end
if what == 'remove' then
  return forget(ARGV[6], owner) and 1 or 0
end
if what == 'find' then
  local found = {}
  for at = 6, #ARGV do
    local id = redis.call('ZREVRANGE', of('name:' .. ARGV[at]), 0, 0)[1]
    found[at - 5] = id and read(id) or false
  end
  return found
end
tidy()
if what == 'get' then
  local found = read(ARGV[6])
  if not found then
    return {}
  end
  touch(ARGV[6])
  return { found }
end
if what == 'present' then
  local present = {}
  for at = 6, #ARGV do
    present[at - 5] = redis.call('EXISTS', record(ARGV[at]))
  end
  return present
end
-- The records from the newest to the oldest; the last element is the id of the one that is missing, or empty.
if what == 'chain' then
  local chain, id = {}, ARGV[6]
  while id ~= '' do
    local found = read(id)
    if not found then
      break
    end
    touch(id)
    chain[#chain + 1] = found
    id = found[2]
  end
  return { id, chain }
end
-- The place of the page's beginning was not found: nothing is returned.
if what == 'list' then
  local after, limit, ascending = ARGV[6], tonumber(ARGV[7]), ARGV[8] == '1'
  local from = ascending and '-inf' or '+inf'
  if after ~= '' then
    local created = redis.call('ZSCORE', of('created'), after)
    if not created then
      return {}
    end
    from = '(' .. created
  end
  local ids
  if ascending then
    ids = redis.call('ZRANGEBYSCORE', of('created'), from, '+inf', 'LIMIT', 0, limit)
  else
    ids = redis.call('ZREVRANGEBYSCORE', of('created'), from, '-inf', 'LIMIT', 0, limit)
  end
  local page = {}
  for at, id in ipairs(ids) do
    page[at] = read(id)
  end
  return { page }
end
-- Replaces the record if it has the version ARGV[12] still. Returns 1; 0 if it has another; -1 if it is gone. One that has the new version
-- was replaced by an earlier attempt, whose answer was lost.
if what == 'swap' then
  local version = redis.call('HGET', record(ARGV[6]), 'version')
  if not version then
    return -1
  elseif version == ARGV[11] then
    return 1
  elseif version ~= ARGV[12] then
    return 0
  end
  put(ARGV[6], ARGV[7], ARGV[8], ARGV[9], ARGV[10], ARGV[11])
  return 1
end
return redis.error_reply('unknown operation ' .. what)
