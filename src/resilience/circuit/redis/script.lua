-- One circuit is one hash, so that it lives in one slot of a cluster and expires as a whole.
--
--   v       version of this layout
--   state   closed, open, half-open or isolated
--   gen     generation: another with every change of state, never used twice
--   openings  in a row, without having closed; not while closed
--   until   open: end of the open time; for, then and while half-open: how long it was to be
--   run     closed: failures in a row, counted over all processes; since: when the first came in
--   passed  half-open: trials that passed; failed: trials that did not
--   trial:T half-open: when the lease of trial T ends; lease: how long it was
--   by:P    the last manual command of process P: its number; 1 if P isolates the circuit, else 0;
--           when it came in
--
-- Times are microseconds on the server's clock; no client's clock comes in here, only durations. If
-- it is set back (another server takes over), nothing lasts longer than it was to last from now.
-- A circuit that has never failed has no key. What lies under a circuit's key without `v`, or with
-- another version, is somebody else's, and left as it is.

local VERSION = '1'
local DAY = 86400000000
local LATE = 600000000  -- how much later than the next one a manual command may come in
local SLOW = 10  -- leases after the end of its own, for which a trial still has a say

local key = KEYS[1]
local op, generation = ARGV[1], ARGV[2]
local trials, successes, failures = tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])
local open_for, lease = tonumber(ARGV[6]), tonumber(ARGV[7])
local token, failed, success_ago = ARGV[8], tonumber(ARGV[9]), tonumber(ARGV[10])
local failable, order = tonumber(ARGV[11]), tonumber(ARGV[12])

local clock = redis.call('TIME')
local now = clock[1] * 1000000 + clock[2]

local NUMBERS = {  -- beside the generation, in each state
  closed = { 'run', 'since' },
  open = { 'openings', 'until', 'for' },
  ['half-open'] = { 'openings', 'for', 'passed', 'failed', 'lease' },
  isolated = { 'openings' },
}

local function fresh(state, gen)
  return {
    state = state, gen = gen, openings = 0, ['until'] = 0, ['for'] = 0, run = 0, since = 0,
    passed = 0, failed = 0, lease = 0, trials = {}, commands = {},
  }
end

local circuit = fresh('closed', 0)
local changed, opened, mended, granted = false, false, false, false

local function whole(text)
  if text and #text <= 16 and string.match(text, '^%d+$') then return tonumber(text) end
end

local kind = redis.call('TYPE', key)['ok']
if kind ~= 'none' and (kind ~= 'hash' or redis.call('HGET', key, 'v') ~= VERSION) then
  return { '0', 'foreign', '0', '0', '0', '0', '0' }
end

local function by(latest, time)
  if time > latest then changed = true end
  return math.min(latest, time)
end

-- Reading: whatever of ours does not make sense is as good as nothing, and is mended.

local function read_command(value)
  local last, isolates, at = string.match(value, '^(%d+) ([01]) (%d+)$')
  last, at = whole(last), whole(at)
  if last and at and (isolates == '1' or at > now - LATE) then
    return { order = last, isolates = isolates == '1', at = at }
  end
end

local function read()
  if kind == 'none' then return true end
  local found, ends, commands = {}, {}, {}
  local flat = redis.call('HGETALL', key)
  for i = 1, #flat, 2 do
    local name, value = flat[i], flat[i + 1]
    local what, whose = string.match(name, '^(%l+):(.+)$')
    if what == 'trial' then
      ends[whose] = whole(value) or 0
    elseif what == 'by' then
      commands[whose] = read_command(value)
    else
      found[name] = value
    end
  end
  local stored = fresh(found.state, whole(found.gen))
  if not stored.gen or not NUMBERS[stored.state] then return false end
  for _, name in ipairs(NUMBERS[stored.state]) do
    stored[name] = whole(found[name])
    if not stored[name] then return false end
  end
  if stored['for'] > 30 * DAY then return false end
  stored['until'] = by(now + stored['for'], stored['until'])
  stored.since = by(now, stored.since)
  if stored.state == 'half-open' then
    for trial, time in pairs(ends) do
      if time > now - SLOW * stored.lease then
        stored.trials[trial] = by(now + stored.lease, time)
      end
    end
  end
  stored.commands = commands
  circuit = stored
  return true
end

local function move(state)
  local before = circuit
  circuit = fresh(state, math.max(before.gen + 1, now))
  circuit.commands = before.commands
  if state ~= 'closed' then circuit.openings, circuit['for'] = before.openings, before['for'] end
  if state == 'open' then
    circuit.openings = before.openings + 1
    circuit['until'], circuit['for'] = now + open_for, open_for
  end
  changed, opened = true, state == 'open'
end

local function number(value) return string.format('%.0f', value) end

local function write()
  redis.call('DEL', key)
  redis.call('HSET', key, 'v', VERSION, 'state', circuit.state)
  local function add(name, value) redis.call('HSET', key, name, number(value)) end
  add('gen', circuit.gen)
  for _, name in ipairs(NUMBERS[circuit.state]) do add(name, circuit[name]) end
  for trial, ends in pairs(circuit.trials) do add('trial:' .. trial, ends) end
  for process, last in pairs(circuit.commands) do
    local isolates = last.isolates and ' 1 ' or ' 0 '
    redis.call('HSET', key, 'by:' .. process, number(last.order) .. isolates .. number(last.at))
  end
end

-- A circuit that nobody asks for expires: an isolated one after a day, others when they are out of
-- date.
local function keep()
  local stay = 2 * math.max(circuit['for'], lease) + 60000000
  if circuit.state == 'isolated' then stay = DAY end
  redis.call('PEXPIRE', key, number(math.ceil(stay / 1000)))
end

mended = not read()
if mended then redis.call('DEL', key) end

-- Operations

local state = circuit.state
local current = generation == number(circuit.gen)  -- else: news from before the last change

local function slot()  -- whether there is one for a trial
  if circuit.state == 'open' then return now >= circuit['until'] end
  local taken = 0
  for _, ends in pairs(circuit.trials) do
    if ends > now then taken = taken + 1 end  -- else its process died, or it takes its time
  end
  return circuit.state == 'half-open' and taken < trials
end

-- Manual commands. Each process numbers its own, and one that comes twice or too late does nothing:
-- an isolation that a slow network delivers after its release would last for a day.

local function is_next()
  local last = circuit.commands[token]
  return order > (last and last.order or 0)
end

local function command(process, last, isolates)
  circuit.commands[process] = { order = last, isolates = isolates, at = now }
  changed = true
end

local function release_all()
  for process, last in pairs(circuit.commands) do
    if last.isolates then command(process, last.order, false) end
  end
  command(token, order, false)
end

local function anybody_isolates()
  for _, last in pairs(circuit.commands) do
    if last.isolates then return true end
  end
  return false
end

if op == 'look' then
  if state == 'closed' then
    if circuit.run > 0 and success_ago >= 0 and now - success_ago > circuit.since then
      circuit.run = 0  -- a success in between: no longer in a row
      changed = true
    end
    if failures > 0 and failed > 0 and current then
      if circuit.run == 0 then circuit.since = now end
      circuit.run = circuit.run + failed
      changed = true
      if circuit.run >= failures then move('open') end
    end
  end
elseif op == 'enter' then
  if state == 'open' and now >= circuit['until'] then move('half-open') end
  if slot() then
    circuit.trials[token], circuit.lease = now + lease, lease
    granted, changed = true, true
  end
elseif op == 'passed' or op == 'failed' or op == 'leave' then
  if circuit.trials[token] then  -- else another has decided, or it is of long ago
    circuit.trials[token] = nil
    changed = true
    if op == 'failed' then
      circuit.failed = circuit.failed + 1
      if circuit.failed > failable then move('open') end
    elseif op == 'passed' then
      circuit.passed = circuit.passed + 1
      if circuit.passed >= successes then move('closed') end
    end
  end
elseif op == 'trip' then
  if state == 'closed' and (current or generation == 'any') then move('open') end
elseif op == 'advise' then
  if state ~= 'isolated' then move('open') end
elseif op == 'open' and is_next() then
  release_all()
  move('open')
elseif op == 'close' and is_next() then
  release_all()
  move('closed')
elseif op == 'isolate' and is_next() then
  command(token, order, true)
  if state ~= 'isolated' then move('isolated') end
elseif op == 'release' and is_next() then
  command(token, order, false)
  if state == 'isolated' and not anybody_isolates() then move('closed') end
end

if changed then write() end
if changed or circuit.state == 'isolated' then keep() end

if op ~= 'enter' then granted = slot() end  -- whether there would be one

local left = 0
if circuit.state == 'open' then left = math.max(0, circuit['until'] - now) end
return {
  granted and '1' or '0', circuit.state, number(circuit.gen), number(left),
  mended and '1' or '0', number(circuit.openings), opened and '1' or '0',
}
