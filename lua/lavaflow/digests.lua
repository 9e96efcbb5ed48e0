-- Digests of files' contents, remembered with what the file system says of the file, so that what was not touched is
-- not read again.
local cjson = require "cjson"
local uv = require "luv"
local core = require "lavaflow.core"
local files = require "lavaflow.files"

local digests = {}

--- @class lavaflow.digests
--- @field path string where they are remembered
--- @field known table<string, { stamp: string, sha256: string }>
local Digests = {}
Digests.__index = Digests

--- @param path string
--- @return lavaflow.digests
function digests.open(path)
  local text = files.is_file(path) and files.read(path)
  local ok, known = pcall(cjson.decode, text or "{}")
  return setmetatable({ path = path, known = ok and type(known) == "table" and known or {} }, Digests)
end

local function time(stamp) return ("%d.%09d"):format(stamp.sec, stamp.nsec) end

-- What changes with a file's content. A file that was changed just now may change again without a trace.
local function stamp_of(stat)
  local young = os.time() - math.max(stat.mtime.sec, stat.ctime.sec) < 2
  return ("%d %d %d %s %s"):format(stat.dev, stat.ino, stat.size, time(stat.mtime), time(stat.ctime)), young
end

--- sha256 of the logical content of "FILE" or "FILE.h5:/OBJECT", or nil and a message.
--- @param name string
--- @return string? sha256
--- @return string? message
function Digests:of(name)
  local file = files.split_object(name)
  local stat, why = uv.fs_stat(file)
  if not stat then return nil, files.reason(file, why) end
  local stamp, young = stamp_of(stat)
  local known = self.known[name]
  if type(known) == "table" and known.stamp == stamp and known.version == core.version then return known.sha256 end
  local sha256, message = files.digest(name)
  if sha256 and not young then
    self.known[name] = { stamp = stamp, sha256 = sha256, version = core.version }
    self.changed = true
  end
  return sha256, message
end

--- Remembers them; that they cannot be written costs time at the next run, nothing else.
function Digests:save()
  local killed = self.path .. ".tmp" -- of a run that was killed while it wrote
  if not files.is_folder(files.folder(self.path)) or not (self.changed or files.is_file(killed)) then return end
  local ok, lock = pcall(core.lock, self.path .. ".lock")
  if not ok or not lock then return end
  if self.changed then files.replace(self.path, cjson.encode(self.known)) end
  files.remove(killed)
  lock:close()
  self.changed = false
end

return digests
