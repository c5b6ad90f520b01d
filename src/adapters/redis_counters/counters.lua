-- Counters that gateways share: every operation on one key, all of it or nothing. Version 1 (the version is in the keys).
--
-- Put before it: local RUN = '<run id of the process it is loaded into>'. Data of another process count as missing.
--
-- KEYS[1]  the hash of a tenant, or of the nodes of a ledger; a token of a tenant
-- ARGV     operation, not_after (server's microseconds; later nothing is done), then what the operation takes
-- answers  {now, word, ...}: the server's microseconds, what came of it. Sums are decimal strings: a double is not exact.
--
-- Fields of a tenant:
--   run st ep jn    process that wrote it; o(pen) or b(uilding); epoch; how many messages of joins
--   fm fd rv        floors of month and day; revision
--   ca cb           what is counted by all who are a part of the epoch, and by any: sets as numbers
--   ps sc           the newest periods that were spoken of; where the search for counters below the floors is
--   co cu ft        who may finish it, until when; who writes sums
--   n:<node>        life of a node that is a part of the epoch
--   b: s: h: q:<c>  of each counter (chats:2026-11, user/alice/cost_usd:2026-11-24): booked, settled and not booked, held,
--                   leased
--   i:<id>          a call: H, S or B, its node, then counter and amount in turn, separated by blanks
--   k:<node>        how many calls of a node are listed
--   l:<node> ls     a node's lease (units, until when, its counters); which nodes have one
-- In building there are no sums: they follow from the calls when it opens.
--
-- Fields of the nodes: run; sn (known since); p:<node> = life, heard, revision; w:<J and an epoch, or L>:<tenant> = wanted until.

local key = KEYS[1]
local call = redis.call
local EXACT = 9007199254740992 -- 2^53: whole numbers are exact in a double below this
local PIECE = 1000 -- arguments of one call: Lua's stack takes 8,000. Even, as HSET takes pairs
local TENANT_MS = 6048000000 -- 70 days: a tenant that is used has a counter of a new month before
local NODES_MS = 86400000
local PERIODS_KEPT = 3 -- newest months and newest days: a clock that is off by a day meets none that is gone
local SWEPT = 200 -- fields that one operation looks through for old ones, about: a tenth of a millisecond
local ALL_AT_ONCE = 1000000 -- fields looked through in one step of what has to see all of one kind

local time = call('TIME')
local now = tonumber(time[1]) * 1000000 + tonumber(time[2])
if now > tonumber(ARGV[2]) then
  return { now, 'late' }
end

local format = string.format

local function whole(value)
  return format('%.0f', value)
end

-- The plain case of the most frequent operation: a new call of a member, without a lease, on some counters that are there,
-- and all fits. Two calls to Redis, and none of the definitions below, which take as long as both. Whatever is not plain is
-- done by operations.hold, which needs no help from here.
if ARGV[1] == 'hold' and ARGV[8] == '' and #ARGV <= 36 then
  local node, call_field = ARGV[3], 'i:' .. ARGV[5]
  local fields = { 'run', 'st', 'ep', 'rv', 'fm', 'fd', 'n:' .. node, 'k:' .. node, call_field }
  local last = 9
  for i = 13, #ARGV, 3 do
    local counter = ARGV[i]
    fields[last + 1] = 'b:' .. counter
    fields[last + 2] = 's:' .. counter
    fields[last + 3] = 'h:' .. counter
    fields[last + 4] = 'q:' .. counter
    last = last + 4
  end
  local values = call('HMGET', key, unpack(fields, 1, last))
  local epoch, month, day = values[3], values[5], values[6]
  local is_plain = values[1] == RUN and values[2] == 'o' and values[7] == ARGV[4] and not values[9]
    and tonumber(values[4]) <= tonumber(ARGV[6])
  for i = 16, #ARGV, 3 do
    for before = 13, i - 3, 3 do
      is_plain = is_plain and ARGV[i] ~= ARGV[before]
    end
  end
  if is_plain then
    local entry = 'H ' .. node
    local written = { call_field, '', 'k:' .. node, whole((values[8] or 0) + 1) }
    local answer = { now, 'taken', epoch, 0 }
    last = 9
    for i = 13, #ARGV, 3 do
      local counter, amount, max = ARGV[i], ARGV[i + 1], tonumber(ARGV[i + 2])
      local booked, settled, before, leased = values[last + 1], values[last + 2], values[last + 3], values[last + 4] or '0'
      local is_new = not (booked or settled or before)
      booked, settled = booked or '0', settled or '0'
      local held = (before or 0) + amount
      local period = string.match(counter, ':(.*)$')
      local is_below = period < (#period == 7 and month or day)
      local fits = not max or booked + settled + held + leased <= max
      is_plain = is_plain and fits and held < EXACT and not is_new and not is_below
      entry = entry .. ' ' .. counter .. ' ' .. amount
      local next_field, next_count = #written, #answer
      written[next_field + 1], written[next_field + 2] = 'h:' .. counter, whole(held)
      answer[next_count + 1], answer[next_count + 2] = booked, settled
      answer[next_count + 3], answer[next_count + 4] = whole(held), leased
      last = last + 4
    end
    if is_plain then
      written[2] = entry
      call('HSET', key, unpack(written))
      return answer
    end
  end
end

local at = 2

local function text()
  at = at + 1
  return ARGV[at]
end

local function number()
  return tonumber(text())
end

local function words(line)
  local found = {}
  for word in string.gmatch(line or '', '%S+') do
    found[#found + 1] = word
  end
  return found
end

-- HMGET, HSET or HDEL in pieces.
local function many(command, list)
  local all = {}
  for from = 1, #list, PIECE do
    local part = call(command, key, unpack(list, from, math.min(from + PIECE - 1, #list)))
    if command == 'HMGET' then
      for i = 1, #part do
        all[#all + 1] = part[i]
      end
    end
  end
  return all
end

-- Sums: of a field, what is to be added to it. Added up first, so that a field is written once.

local sums = {}

local function add(field, amount)
  local sum = (sums[field] or 0) + amount
  if sum >= EXACT or sum <= -EXACT then
    call('HINCRBY', key, field, whole(sums[field]))
    sum = amount
  end
  sums[field] = sum
end

-- Also those that nothing changes: a counter that was spoken of is there.
local function write_sums()
  for field, amount in pairs(sums) do
    call('HINCRBY', key, field, whole(amount))
  end
  sums = {}
end

-- Calls.

local PREFIXES = { H = 'h:', S = 's:', B = 'b:' }

local function entry_node(entry)
  return string.sub(entry, 3, 18)
end

-- Adds a call's amounts to the sums of its state, or with -1 takes them off.
local function add_entry(entry, sign)
  local prefix = PREFIXES[string.sub(entry, 1, 1)]
  for counter, amount in string.gmatch(string.sub(entry, 20), '(%S+) (%S+)') do
    add(prefix .. counter, sign * tonumber(amount))
  end
end

-- A call as an operation says it: its field, state and entry; and where it may not be listed yet, how many units it takes
-- of the lease: 1 if its state is a small letter, 0 for N, which is a settled one.
local function call_read()
  local field, entry = 'i:' .. text(), text()
  local said = string.sub(entry, 1, 1)
  if said == 'N' then
    return field, 'S', 'S' .. string.sub(entry, 2), 0
  end
  local state = string.upper(said)
  if state == said then
    return field, state, entry
  end
  return field, state, state .. string.sub(entry, 2), 1
end

-- Leases.

local function lease_read(node)
  local found = words(call('HGET', key, 'l:' .. node))
  if #found > 0 then
    return { units = tonumber(found[1]), till = tonumber(found[2]), counters = { unpack(found, 3) } }
  end
end

local function lease_add(lease, units)
  lease.units = lease.units + units
  for _, counter in ipairs(lease.counters) do
    add('q:' .. counter, units)
  end
end

-- Writes a lease, or takes it off when nothing is left of it; and then the sums.
local function lease_write(node, lease)
  local nodes = words(call('HGET', key, 'ls'))
  local rest = {}
  for _, other in ipairs(nodes) do
    if other ~= node then
      rest[#rest + 1] = other
    end
  end
  local is_listed = #rest < #nodes
  if lease.units > 0 then
    local line = whole(lease.units) .. ' ' .. whole(lease.till) .. ' ' .. table.concat(lease.counters, ' ')
    call('HSET', key, 'l:' .. node, line)
    if not is_listed then
      rest[#rest + 1] = node
      call('HSET', key, 'ls', table.concat(rest, ' '))
    end
  elseif is_listed then
    call('HSET', key, 'ls', table.concat(rest, ' '))
    call('HDEL', key, 'l:' .. node)
  end
  write_sums()
end

-- It has at most so many units from now on.
local function lease_shrink(node, left)
  local lease = lease_read(node)
  if lease and lease.units > left then
    lease_add(lease, left - lease.units)
    lease_write(node, lease)
  end
end

-- Ends leases that are over.
local function leases_over()
  for _, node in ipairs(words(call('HGET', key, 'ls'))) do
    local lease = lease_read(node)
    if lease and lease.till <= now then
      lease_shrink(node, 0)
    end
  end
end

-- Claims and counts.

local function count_fields(fields, counter)
  local next = #fields
  fields[next + 1] = 'b:' .. counter
  fields[next + 2] = 's:' .. counter
  fields[next + 3] = 'h:' .. counter
  fields[next + 4] = 'q:' .. counter
end

local function claims_fields(claims, fields)
  for _, claim in ipairs(claims) do
    count_fields(fields, claim.counter)
  end
  return fields
end

-- Puts the four sums of each claim's counter, which are the values behind `from`, into the claim.
local function claims_take(claims, values, from)
  for i, claim in ipairs(claims) do
    local base = from + (i - 1) * 4
    claim.count = { values[base + 1], values[base + 2], values[base + 3], values[base + 4] }
  end
end

local function claims_again(claims)
  claims_take(claims, many('HMGET', claims_fields(claims, {})), 0)
end

local function count_answer(answer, count)
  for i = 1, 4 do
    answer[#answer + 1] = count[i] or '0'
  end
  return answer
end

local function sum_of(count, last)
  local sum = 0
  for i = 1, last do
    sum = sum + tonumber(count[i] or 0)
  end
  return sum
end

-- The first claim that does not fit, and whether it would not without leases either.
local function lacking(claims)
  for i, claim in ipairs(claims) do
    if claim.max then
      local taken = sum_of(claim.count, 3) + claim.amount
      if taken + tonumber(claim.count[4] or 0) > claim.max then
        return i, taken > claim.max
      end
    end
  end
end

local function is_below(counter, month, day)
  local period = string.match(counter, ':(.*)$')
  return period < (#period == 7 and month or day)
end

-- Leases units of what the claims left. The claims' counts are those after the call.
local function lease_take(node, claims, wish)
  for _, claim in ipairs(claims) do
    if claim.amount ~= 1 then
      return 0
    end
  end
  lease_shrink(node, wish.left)
  claims_again(claims)
  local units = wish.units_max
  local counters = {}
  for i, claim in ipairs(claims) do
    counters[i] = claim.counter
    if claim.max then
      local left = math.max(claim.max - sum_of(claim.count, 4), 0)
      units = math.min(units, math.floor(left / wish.parts))
    end
  end
  local lease = lease_read(node)
  if units == 0 or lease and table.concat(lease.counters, ' ') ~= table.concat(counters, ' ') then
    return 0
  end
  lease = lease or { units = 0, counters = counters }
  lease.till = now + wish.lasts
  lease_add(lease, units)
  lease_write(node, lease)
  claims_again(claims)
  return units
end

-- Periods that are spoken of: the newest ones of each kind are kept.

local periods

local function periods_read(line)
  periods = { is_new = false }
  for _, period in ipairs(words(line)) do
    periods[period] = true
    periods[#periods + 1] = period
  end
end

local function period_seen(counter)
  local period = string.match(counter, ':(.*)$')
  if not periods[period] then
    periods[period] = true
    periods[#periods + 1] = period
    periods.is_new = true
  end
end

local function entry_seen(entry)
  for counter in string.gmatch(string.sub(entry, 20), '(%S+) %S+') do
    period_seen(counter)
  end
end

-- Gives the oldest month and day that are kept, where there are as many.
local function periods_write()
  local kinds = { [7] = {}, [10] = {} }
  for _, period in ipairs(periods) do
    local kind = kinds[#period]
    kind[#kind + 1] = period
  end
  local kept, oldest = {}, {}
  for length, kind in pairs(kinds) do
    table.sort(kind)
    for i = math.max(1, #kind - PERIODS_KEPT + 1), #kind do
      kept[#kept + 1] = kind[i]
    end
    oldest[length] = kind[#kind - PERIODS_KEPT + 1]
  end
  if periods.is_new then
    call('HSET', key, 'ps', table.concat(kept, ' '))
  end
  return oldest[7], oldest[10]
end

-- The floors rise to the oldest periods that are kept: what is not there from a floor on is 0, and a claim below it has the
-- tenant built anew. Counters below them are found and let go bit by bit.
local function floors_rise(month, day)
  local from_month, from_day = periods_write()
  from_month = from_month and from_month > month and from_month or month
  from_day = from_day and from_day > day and from_day or day
  if from_month ~= month or from_day ~= day then
    call('HSET', key, 'fm', from_month, 'fd', from_day, 'sc', '0')
  end
end

-- Looks through some fields for counters below the floors. Those that calls or leases still move stay.
local function sweep(cursor, month, day)
  local found = call('HSCAN', key, cursor, 'COUNT', SWEPT)
  local gone = {}
  for i = 1, #found[2], 2 do
    local counter = string.match(found[2][i], '^[bshq]:(.*)$')
    if counter and is_below(counter, month, day) then
      local fields = {}
      count_fields(fields, counter)
      local values = call('HMGET', key, unpack(fields))
      if sum_of({ values[2], values[3], values[4] }, 3) == 0 then
        for at = 1, 4 do
          gone[#gone + 1] = fields[at]
        end
      end
    end
  end
  many('HDEL', gone)
  if found[1] == '0' then
    call('HDEL', key, 'sc')
  else
    call('HSET', key, 'sc', found[1])
  end
end

-- All fields of one kind, with their values in turn.
local function all_of(kind)
  local found, cursor = {}, '0'
  repeat
    local step = call('HSCAN', key, cursor, 'MATCH', kind .. ':*', 'COUNT', ALL_AT_ONCE)
    cursor = step[1]
    for i = 1, #step[2] do
      found[#found + 1] = step[2][i]
    end
  until cursor == '0'
  return found
end

-- A tenant in building, with nothing listed and nobody a part of it, over whatever was there of another process.
local function begin(epoch, month, day)
  call('UNLINK', key)
  call('HSET', key, 'run', RUN, 'st', 'b', 'ep', epoch, 'jn', '0', 'fm', month, 'fd', day, 'rv', '0')
  call('PEXPIRE', key, TENANT_MS)
end

-- An open tenant is in building again: what is left are its calls and its revision. The rest goes at once, however much
-- there is.
local function begin_again(epoch, month, day)
  local calls, listed = all_of('i'), all_of('k')
  local revision = call('HGET', key, 'rv')
  begin(epoch, month, day)
  call('HSET', key, 'rv', revision)
  many('HSET', calls)
  many('HSET', listed)
end

-- All calls: a table from field to entry.
local function entries()
  local all, found = all_of('i'), {}
  for i = 1, #all, 2 do
    found[all[i]] = all[i + 1]
  end
  return found
end

-- A node counts so much, and is a part of the epoch from now on.
local function counts(node, life, counting)
  local values = call('HMGET', key, 'ca', 'cb')
  local by_all = bit.band(tonumber(values[1] or counting), tonumber(counting))
  local by_any = bit.bor(tonumber(values[2] or 0), tonumber(counting))
  call('HSET', key, 'n:' .. node, life, 'ca', whole(by_all), 'cb', whole(by_any))
end

-- Whether all that a node counts was counted by all since it was opened.
local function is_counted(counting)
  local by_all = call('HGET', key, 'ca')
  return by_all and bit.band(tonumber(by_all), tonumber(counting)) == tonumber(counting)
end

-- What can be asked: each operation gives its answer without the time.

local operations = {}

function operations.hold()
  local node, life, id, revision = text(), text(), text(), number()
  -- What it counts, if it is alone.
  local counting = text()
  local wish = { units_max = number(), parts = number(), lasts = number(), left = number() }
  local claims, entry = {}, { 'H', node }
  for i = 1, number() do
    claims[i] = { counter = text(), amount = number(), max = number() }
    entry[#entry + 1] = claims[i].counter
    entry[#entry + 1] = whole(claims[i].amount)
  end
  local fields = { 'run', 'st', 'ep', 'rv', 'fm', 'fd', 'n:' .. node, 'k:' .. node, 'i:' .. id, 'ps', 'sc' }
  local values = many('HMGET', claims_fields(claims, fields))
  local run, state, epoch, newest, month, day, member, listed, is_known, seen, cursor = unpack(values, 1, 11)
  claims_take(claims, values, 11)
  if run ~= RUN then
    return { 'unjoined' }
  end
  if state ~= 'o' then
    return { 'building' }
  end
  if member ~= life then
    if counting == '' or tonumber(listed or 0) > 0 or not is_counted(counting) then
      return { 'unjoined' }
    end
    counts(node, life, counting)
    lease_shrink(node, 0)
    claims_again(claims)
  end
  if tonumber(newest) > revision then
    return { 'behind', newest }
  end
  local leased = 0
  if not is_known then
    for _, claim in ipairs(claims) do
      if is_below(claim.counter, month, day) then
        return { 'unjoined' }
      end
    end
    if lacking(claims) then
      leases_over()
      claims_again(claims)
      local claim, is_full = lacking(claims)
      if claim then
        return count_answer({ is_full and 'full' or 'leased', claim - 1 }, claims[claim].count)
      end
    end
    call('HSET', key, 'i:' .. id, table.concat(entry, ' '))
    add('k:' .. node, 1)
    local is_new = false
    for _, claim in ipairs(claims) do
      add('h:' .. claim.counter, claim.amount)
      is_new = is_new or not (claim.count[1] or claim.count[2] or claim.count[3])
    end
    write_sums()
    if is_new then
      call('PEXPIRE', key, TENANT_MS)
      periods_read(seen)
      for _, claim in ipairs(claims) do
        period_seen(claim.counter)
      end
      floors_rise(month, day)
      if cursor then
        sweep(cursor, month, day)
      end
    end
    if wish.units_max then
      leased = lease_take(node, claims, wish)
    end
    claims_again(claims)
  else
    -- What is let go bit by bit is gone for whoever asks.
    for _, claim in ipairs(claims) do
      claim.count = is_below(claim.counter, month, day) and {} or claim.count
    end
  end
  local answer = { 'taken', epoch, leased }
  for _, claim in ipairs(claims) do
    count_answer(answer, claim.count)
  end
  return answer
end

function operations.note()
  local node, life, epoch, left = text(), text(), text(), text()
  local head = call('HMGET', key, 'run', 'st', 'ep', 'n:' .. node, 'ps', 'sc', 'fm', 'fd')
  if head[1] ~= RUN or head[3] ~= epoch or head[4] ~= life then
    return { 'unjoined' }
  end
  local is_open = head[2] == 'o'
  periods_read(head[5])
  local spent = 0
  for i = 1, number() do
    local field, state, entry, units = call_read()
    local before = call('HGET', key, field)
    if not before and units then
      spent = spent + units
    end
    if before or units then
      local goes = state == 'G' or is_open and state == 'B'
      if before and goes then
        call('HDEL', key, field)
        add('k:' .. entry_node(before), -1)
      elseif not goes then
        call('HSET', key, field, entry)
        if before then
          add('k:' .. entry_node(before), -1)
        end
        add('k:' .. node, 1)
      end
      if is_open then
        if before then
          add_entry(before, -1)
          entry_seen(before)
        end
        if state ~= 'G' then
          add_entry(entry, 1)
          entry_seen(entry)
        end
      end
    end
  end
  write_sums()
  if periods.is_new then
    periods_write()
  end
  if is_open and head[6] then
    sweep(head[6], head[7], head[8])
  end
  if spent > 0 or left ~= '' then
    local lease = lease_read(node)
    if lease then
      local units = math.max(lease.units - spent, 0)
      lease_shrink(node, left == '' and units or math.min(units, tonumber(left)))
    end
  end
  return { 'done' }
end

function operations.join()
  local node, life, epoch, is_forced = text(), text(), text(), text() == '1'
  local month, day, is_first, is_last, counting, count = text(), text(), text() == '1', text() == '1', text(), number()
  local values = call('HMGET', key, 'run', 'st', 'ep', 'fm', 'fd', 'n:' .. node, 'k:' .. node)
  local run, state, current, month_now, day_now, member, listed = unpack(values, 1, 7)
  if not is_first and (run ~= RUN or state ~= 'b' or current ~= epoch) then
    return { 'moved' }
  end
  if run ~= RUN then
    begin(epoch, month, day)
    state, current, member, listed = 'b', epoch, false, false
  end
  if is_first then
    if not is_forced and member == life then
      return { state == 'o' and 'open' or 'building', current }
    end
    if state == 'o' then
      if not is_forced and count == 0 and is_last and tonumber(listed or 0) == 0 and is_counted(counting) then
        counts(node, life, counting)
        lease_shrink(node, 0)
        return { 'open', current }
      end
      begin_again(epoch, month < month_now and month or month_now, day < day_now and day or day_now)
      current = epoch
    end
    local gone = { 'n:' .. node }
    if tonumber(listed or 0) > 0 then
      gone[2] = 'k:' .. node
      for field, entry in pairs(entries()) do
        if entry_node(entry) == node then
          gone[#gone + 1] = field
        end
      end
    end
    many('HDEL', gone)
  end
  for i = 1, count do
    local field, _, entry = call_read()
    local before = call('HGET', key, field)
    if before then
      add('k:' .. entry_node(before), -1)
    end
    call('HSET', key, field, entry)
    add('k:' .. node, 1)
  end
  write_sums()
  if is_last then
    counts(node, life, counting)
  end
  call('HINCRBY', key, 'jn', 1)
  return { 'building', current }
end

function operations.look()
  local node = text()
  local values = call('HMGET', key, 'run', 'st', 'ep', 'co', 'cu', 'jn', 'fm', 'fd', 'cb')
  local run, state, epoch, finisher, till, joins, month, day, counting = unpack(values, 1, 9)
  if run ~= RUN then
    return { 'unknown' }
  end
  if state == 'o' then
    return { 'open', epoch }
  end
  if not finisher or tonumber(till) <= now then
    call('HSET', key, 'co', node, 'cu', whole(now + 1000000))
  elseif finisher ~= node then
    return { 'busy', call('HEXISTS', key, 'n:' .. node) }
  end
  local nodes, ids, members, listed = {}, {}, all_of('n'), all_of('i')
  for i = 1, #members, 2 do
    nodes[#nodes + 1] = string.sub(members[i], 3)
  end
  for i = 1, #listed, 2 do
    ids[#ids + 1] = string.sub(listed[i], 3)
  end
  return { 'building', epoch, joins, month, day, counting or '0', nodes, ids }
end

-- What somebody wrote who did not open it is gone.
local function unwrite()
  local all, gone = all_of('b'), {}
  for i = 1, #all, 2 do
    gone[#gone + 1] = all[i]
  end
  many('HDEL', gone)
end

-- A part of the sums, before the last one, which opens it. Of two who write only the one that began last goes on.
function operations.sums()
  local epoch, joins, writer, is_first = text(), text(), text(), text() == '1'
  local head = call('HMGET', key, 'run', 'st', 'ep', 'jn', 'ft')
  if head[1] ~= RUN or head[2] ~= 'b' or head[3] ~= epoch or head[4] ~= joins or not is_first and head[5] ~= writer then
    return { 'other' }
  end
  if head[5] and head[5] ~= writer then
    unwrite()
  end
  -- Whoever looks leaves it to the one that finishes it for as long as sums come.
  local written = { 'ft', writer, 'cu', whole(now + 1000000) }
  periods_read(call('HGET', key, 'ps'))
  for i = 1, number() do
    local counter = text()
    period_seen(counter)
    written[#written + 1] = 'b:' .. counter
    written[#written + 1] = text()
  end
  many('HSET', written)
  periods_write()
  return { 'done' }
end

function operations.finish()
  local epoch, joins, writer = text(), text(), text()
  local head = call('HMGET', key, 'run', 'st', 'ep', 'jn', 'ft', 'ps')
  if head[1] ~= RUN or head[2] ~= 'b' or head[3] ~= epoch or head[4] ~= joins or writer ~= '' and head[5] ~= writer then
    return { 'other' }
  end
  if head[5] and writer == '' then
    unwrite()
  end
  local opened = { 'st', 'o' }
  periods_read(head[6])
  for i = 1, number() do
    local counter = text()
    period_seen(counter)
    opened[#opened + 1] = 'b:' .. counter
    opened[#opened + 1] = text()
  end
  many('HSET', opened)
  local listed = entries()
  local gone = { 'co', 'cu', 'ft' }
  local function take_off(field)
    add('k:' .. entry_node(listed[field]), -1)
    gone[#gone + 1] = field
    listed[field] = nil
  end
  for i = 1, number() do
    local field = 'i:' .. text()
    if listed[field] then
      take_off(field)
    end
  end
  for field, entry in pairs(listed) do
    entry_seen(entry)
    add_entry(entry, 1)
    if string.sub(entry, 1, 1) == 'B' then
      take_off(field)
    end
  end
  many('HDEL', gone)
  write_sums()
  periods_write()
  call('PEXPIRE', key, TENANT_MS)
  return { 'done' }
end

function operations.read()
  local fields = { 'run', 'st', 'fm', 'fd' }
  local count, counters = number(), {}
  for i = 1, count do
    counters[i] = text()
    count_fields(fields, counters[i])
  end
  local values = many('HMGET', fields)
  if values[1] ~= RUN or values[2] ~= 'o' then
    return { 'none' }
  end
  local answer = { 'counts' }
  for i = 1, count do
    if is_below(counters[i], values[3], values[4]) then
      return { 'none' }
    end
    local base = 4 + (i - 1) * 4
    count_answer(answer, { values[base + 1], values[base + 2], values[base + 3], values[base + 4] })
  end
  return answer
end

function operations.list()
  local head = call('HMGET', key, 'run', 'st', 'fm', 'fd')
  if head[1] ~= RUN or head[2] ~= 'o' then
    return { 'none' }
  end
  -- Some fields at a time: a counter may come again, each time with all of its sums.
  local cursor, max = text(), text()
  local found = call('HSCAN', key, cursor, 'MATCH', '[bshq]:*', 'COUNT', max)
  local fields, seen = {}, {}
  for i = 1, #found[2], 2 do
    local counter = string.sub(found[2][i], 3)
    if not seen[counter] and not is_below(counter, head[3], head[4]) then
      seen[counter] = true
      count_fields(fields, counter)
    end
  end
  local answer = { 'sums', found[1] }
  for i, value in ipairs(many('HMGET', fields)) do
    if value then
      answer[#answer + 1] = fields[i]
      answer[#answer + 1] = value
    end
  end
  return answer
end

function operations.changed()
  local revision = text()
  local head = call('HMGET', key, 'run', 'rv')
  if head[1] == RUN and tonumber(head[2]) < tonumber(revision) then
    call('HSET', key, 'rv', revision)
  end
  return { 'done' }
end

function operations.beat()
  local node, life, revision, is_last, quiet_max, wanted_for = text(), text(), text(), text() == '1', number(), number()
  if call('HGET', key, 'run') ~= RUN then
    call('DEL', key)
    call('HSET', key, 'run', RUN, 'sn', whole(now))
  end
  call('HSET', key, 'p:' .. node, life .. ' ' .. whole(now) .. ' ' .. revision)
  local gone, wanted = {}, {}
  if is_last then
    gone[1] = 'p:' .. node
  end
  for i = 1, number() do
    wanted[#wanted + 1] = 'w:' .. text()
    wanted[#wanted + 1] = whole(now + wanted_for)
  end
  many('HSET', wanted)
  for i = 1, number() do
    gone[#gone + 1] = 'w:' .. text()
  end
  many('HDEL', gone)
  local wanted_max = number()
  local all, peers, wishes, since, over = call('HGETALL', key), {}, {}, now, {}
  for i = 1, #all, 2 do
    local field, value = all[i], all[i + 1]
    local kind = string.sub(field, 1, 2)
    if kind == 'p:' then
      local life_of, heard, revision_of = unpack(words(value))
      if now - tonumber(heard) > quiet_max then
        over[#over + 1] = field
      else
        local last = #peers
        peers[last + 1], peers[last + 2] = string.sub(field, 3), life_of
        peers[last + 3], peers[last + 4] = whole(math.max(now - tonumber(heard), 0)), revision_of
      end
    elseif kind == 'w:' then
      if tonumber(value) <= now then
        over[#over + 1] = field
      elseif #wishes < wanted_max then
        wishes[#wishes + 1] = string.sub(field, 3)
      end
    elseif field == 'sn' then
      since = tonumber(value)
    end
  end
  many('HDEL', over)
  call('PEXPIRE', key, NODES_MS)
  return { 'pulse', whole(math.max(now - since, 0)), peers, wishes }
end

-- A token by which an answer goes on; its key holds RUN, and which call took it.
function operations.issue()
  call('SET', key, RUN .. ' ', 'PX', text())
  return { 'done' }
end

function operations.take()
  local id, value = text(), call('GET', key)
  if value == RUN .. ' ' then
    call('SET', key, RUN .. ' ' .. id, 'KEEPTTL')
    return { 'yours' }
  end
  return { value == RUN .. ' ' .. id and 'yours' or 'unknown' }
end
