-- Rate limits and holds. Times are microseconds on the server's clock; no client's clock comes in.
--
-- A rate limit is one hash, beside which a sorted set has the processes that use it:
--   v       version of this layout
--   r, k    when what was used of the requests, and of the tokens, will have drained
--   n, b    after the server had lost its data: how many processes there were, and since when they
--           have been coming back
-- The holds of one policy are one hash: for each key until when it is held.
--
-- What lies under such a key and is of another kind or version is left as it is.

local VERSION = '1'
local MINUTE, DAY = 60000000, 86400000000
local ALIVE = 10 * MINUTE  -- for how long a process counts that asks nothing

local key, beside = KEYS[1], KEYS[2]
local op = ARGV[1]
local clock = redis.call('TIME')
local now = clock[1] * 1000000 + clock[2]

local function number(value) return string.format('%.0f', value) end

local kind = redis.call('TYPE', key)['ok']

if op == 'hold' or op == 'holds' then
  if kind ~= 'none' and kind ~= 'hash' then return { 'foreign' } end
  local found, longest = { 'ok' }, 0
  local flat = redis.call('HGETALL', key)
  for i = 1, #flat, 2 do
    local left = (tonumber(flat[i + 1]) or 0) - now
    if left <= 0 then
      redis.call('HDEL', key, flat[i])
    else
      longest = math.max(longest, left)
      found[#found + 1] = flat[i]
      found[#found + 1] = number(math.min(left, DAY))
    end
  end
  if op == 'hold' then
    local field, time = ARGV[2], math.min(tonumber(ARGV[3]), DAY)
    local before = tonumber(redis.call('HGET', key, field)) or 0
    redis.call('HSET', key, field, number(math.max(before, now + time)))
    redis.call('PEXPIRE', key, number(math.ceil(math.max(longest, time) / 1000) + 1000))
    redis.call('PUBLISH', ARGV[5], ARGV[4] .. ' ' .. number(time) .. ' ' .. field)
  end
  return found
end

if kind ~= 'none' and (kind ~= 'hash' or redis.call('HGET', key, 'v') ~= VERSION) then
  return { 'foreign' }
end

local each, room = tonumber(ARGV[2]), tonumber(ARGV[3])
local each_token, room_tokens = tonumber(ARGV[4]), tonumber(ARGV[5])
local cost, owed, more = tonumber(ARGV[6]), tonumber(ARGV[7]), tonumber(ARGV[8])
local longest, process = tonumber(ARGV[9]), ARGV[10]
local known, settle = tonumber(ARGV[11]), tonumber(ARGV[12])

redis.call('ZADD', beside, number(now), process)
redis.call('ZREMRANGEBYSCORE', beside, '-inf', number(now - ALIVE))
redis.call('PEXPIRE', beside, number(ALIVE / 1000))
local processes = redis.call('ZCARD', beside)

local stored = redis.call('HMGET', key, 'r', 'k', 'n', 'b')
local r, k = tonumber(stored[1]), tonumber(stored[2])
local before, since = tonumber(stored[3]) or 0, tonumber(stored[4]) or now
if not r or not k then
  r, k = 0, 0
  if known > 0 then r, k = now + room + each, now + room_tokens end  -- nobody knows what was used
end
r, k = math.min(r, now + DAY), math.min(k, now + DAY)  -- the clock may have been set back

-- Processes that have not found the server again go on with their shares: those that have, with
-- theirs.
before = math.max(before, known)
if now - since >= settle or before <= processes then before, since = 0, now end
local share = 1
if before > processes then share = before / processes end
each, each_token = each * share, each_token * share

if owed > 0 then r = math.max(r, now) end
r = r + owed * each
if more > 0 then k = math.max(k, now) end
k = k + more * each_token

local at = math.max(now, r - room)
if cost > 0 then at = math.max(at, k - math.max(0, room_tokens - cost * each_token)) end
local booked = at - now <= longest
if booked then
  r = math.max(r, at) + each
  if cost > 0 then k = math.max(k, at) + cost * each_token end
end
redis.call('HSET', key, 'v', VERSION, 'r', number(r), 'k', number(k))
if before > 0 then
  redis.call('HSET', key, 'n', before, 'b', number(since))
else
  redis.call('HDEL', key, 'n', 'b')
end
redis.call('PEXPIRE', key, number(math.ceil((math.max(r, k, now) - now + settle) / 1000) + 1000))
return {
  booked and '1' or '0', number(at - now), number(processes), number(r - now), number(k - now),
}
