
-- Rates, put behind the counters: they share the clock, the key and the arguments of an operation.
--
-- KEYS[1]  what the keys of a tenant are named after, so that they lie in the same place. Each ends by itself when it says
--          nothing any more:
-- r: t:    a bucket: when it will be full, in the server's microseconds. One that is full is not there
-- c:       a sorted set of each subject that has requests at once: their ids, by when their places end
-- i:       a call that took from buckets: when it did, for as long as anything of that may be given back; or 'over'. At least for
--          as long as what was sent may come once more: an answer that is lost is asked for again, and is done once

local MINUTE = 60000000
local PLACES_MS = 120000 -- more than a place lasts

local function named(name)
  return key .. ':' .. name
end

local function full_at(bucket)
  return tonumber(call('GET', bucket) or '0')
end

local function milliseconds(span)
  return whole(math.ceil(span / 1000))
end

local function keep(bucket, full)
  if full > now then
    call('SET', bucket, whole(full), 'PX', milliseconds(full - now))
  else
    call('DEL', bucket)
  end
end

-- For how long an operation that was sent at once with this one may yet be done.
local function sent_for()
  return tonumber(ARGV[2]) - now + 1
end

-- id, how long a place lasts, how many; then of each: b(ucket) or p(laces), name, span of the bucket or most places.
-- Answers how each stands then, as rate_read does.
function operations.rate()
  local id, lasts, count = text(), number(), number()
  local mark = named('i:' .. id)
  local was_done = call('GET', mark)
  local full, places, longest, found = {}, {}, 0, { 'taken' }
  for claim = 0, count - 1 do
    local kind, name, amount = text(), named(text()), number()
    if kind == 'b' then
      local then_ = math.max(full_at(name), now)
      if not was_done then
        then_ = then_ + amount
        if then_ > now + MINUTE then
          return { 'full', claim, whole(then_ - now - MINUTE) }
        end
        full[name] = then_
        longest = math.max(longest, amount)
      end
      found[#found + 1] = whole(then_ - now)
    else
      call('ZREMRANGEBYSCORE', name, '-inf', whole(now))
      if not was_done then
        if call('ZCARD', name) >= amount and not call('ZSCORE', name, id) then
          return { 'full', claim, 0 }
        end
        places[#places + 1] = name
      end
      found[#found + 1] = call('ZCARD', name) + (call('ZSCORE', name, id) and 0 or 1)
    end
  end
  for bucket, then_ in pairs(full) do
    keep(bucket, then_)
  end
  if longest > 0 then
    call('SET', mark, whole(now), 'PX', milliseconds(math.max(longest, sent_for())))
  end
  for _, set in ipairs(places) do
    call('ZADD', set, whole(now + lasts), id)
    call('PEXPIRE', set, PLACES_MS)
  end
  return found
end

-- id, how many; then of each: b(ucket) or p(laces), name, span that was taken, span that was used
function operations.rate_end()
  local id, count = text(), number()
  local mark = named('i:' .. id)
  local marked = call('GET', mark)
  if marked == 'over' then
    return { 'done' }
  end
  -- Without a mark it took nothing, or so long ago that it has filled again. What it used beyond that is taken all the same.
  local since, has_bucket = tonumber(marked or '0'), false
  for _ = 1, count do
    local kind, name, taken, used = text(), named(text()), number(), number()
    local back = taken - used - (now - since)
    has_bucket = has_bucket or kind == 'b'
    if kind == 'p' then
      call('ZREM', name, id)
    elseif used > taken then
      keep(name, math.max(full_at(name), now) + used - taken)
    elseif back > 0 then
      keep(name, full_at(name) - back)
    end
  end
  if has_bucket then
    call('SET', mark, 'over', 'PX', milliseconds(sent_for()))
  end
  return { 'done' }
end

-- how long a place lasts, how many; then of each name, id. A place that was given back meanwhile stays so
function operations.rate_renew()
  local lasts, count = number(), number()
  for _ = 1, count do
    local set = named(text())
    call('ZADD', set, 'XX', whole(now + lasts), text())
    call('PEXPIRE', set, PLACES_MS)
  end
  return { 'done' }
end

-- how many; then of each: b(ucket) or p(laces), name
function operations.rate_read()
  local found = { 'rates' }
  for _ = 1, number() do
    local kind, name = text(), named(text())
    if kind == 'b' then
      found[#found + 1] = whole(math.max(full_at(name) - now, 0))
    else
      found[#found + 1] = call('ZCOUNT', name, '(' .. whole(now), '+inf')
    end
  end
  return found
end

local answer = operations[ARGV[1]]()
table.insert(answer, 1, now)
return answer
