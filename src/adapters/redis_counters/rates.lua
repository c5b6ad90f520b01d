
-- Rates, put behind the counters: they share the clock, the key and the arguments of an operation.
--
-- KEYS[1]  the hash of a tenant's buckets: of each when it will be full, in the server's microseconds
-- and, named after it so that they lie in the same place, a sorted set of each subject that has requests at once: their ids,
-- by when their places end

local MINUTE = 60000000
local RATES_MS = 120000 -- a bucket is full after a minute, and one that was taken too little from after two

local function places_of(name)
  return key .. ':' .. name
end

-- id, how long a place lasts, how many; then of each: b(ucket) or p(laces), name, span of the bucket or most places.
-- Answers how each stands then, as rate_read does.
function operations.rate()
  local id, lasts, count = text(), number(), number()
  local full, places, found = {}, {}, { 'taken' }
  for claim = 0, count - 1 do
    local kind, name, amount = text(), text(), number()
    if kind == 'b' then
      local then_ = math.max(tonumber(call('HGET', key, name) or '0'), now) + amount
      if then_ > now + MINUTE then
        return { 'full', claim, whole(then_ - now - MINUTE) }
      end
      full[#full + 1] = name
      full[#full + 1] = whole(then_)
      found[#found + 1] = whole(then_ - now)
    else
      local set = places_of(name)
      call('ZREMRANGEBYSCORE', set, '-inf', whole(now))
      if call('ZCARD', set) >= amount and not call('ZSCORE', set, id) then
        return { 'full', claim, 0 }
      end
      places[#places + 1] = set
      found[#found + 1] = call('ZCARD', set) + (call('ZSCORE', set, id) and 0 or 1)
    end
  end
  if #full > 0 then
    call('HSET', key, unpack(full))
    call('PEXPIRE', key, RATES_MS)
  end
  for _, set in ipairs(places) do
    call('ZADD', set, whole(now + lasts), id)
    call('PEXPIRE', set, RATES_MS)
  end
  return found
end

-- id, how many; then of each: b(ucket) or p(laces), name, span that was taken, span that was used
function operations.rate_end()
  local id, count = text(), number()
  for _ = 1, count do
    local kind, name, taken, used = text(), text(), number(), number()
    if kind == 'p' then
      call('ZREM', places_of(name), id)
    elseif used ~= taken then
      local then_ = tonumber(call('HGET', key, name) or '0')
      if used > taken then
        then_ = math.max(then_, now)
      end
      call('HSET', key, name, whole(math.max(then_ + used - taken, 0)))
      call('PEXPIRE', key, RATES_MS)
    end
  end
  return { 'done' }
end

-- how long a place lasts, how many; then of each name, id
function operations.rate_renew()
  local lasts, count = number(), number()
  for _ = 1, count do
    local set = places_of(text())
    call('ZADD', set, whole(now + lasts), text())
    call('PEXPIRE', set, RATES_MS)
  end
  return { 'done' }
end

-- how many; then of each: b(ucket) or p(laces), name
function operations.rate_read()
  local found = { 'rates' }
  for _ = 1, number() do
    local kind, name = text(), text()
    if kind == 'b' then
      found[#found + 1] = whole(math.max(tonumber(call('HGET', key, name) or '0') - now, 0))
    else
      found[#found + 1] = call('ZCOUNT', places_of(name), '(' .. whole(now), '+inf')
    end
  end
  return found
end

local answer = operations[ARGV[1]]()
table.insert(answer, 1, now)
return answer
