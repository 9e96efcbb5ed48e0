-- Run files as the commands that only read them see them: those of runs that have ended and, while a run goes on or
-- after it was killed, the live file beside it.
local uv = require "luv"
local core = require "lavaflow.core"
local files = require "lavaflow.files"
local options = require "lavaflow.options"
local tables = require "lavaflow.tables"

local runfile = {}

-- Longer arrays are read when they are asked for.
local SHORT, ALL = 1000, 1 << 28

--- The metrics that a training writes at the end of an epoch, and all that trainings write.
runfile.epoch_series = { "loss", "accuracy", "val_loss", "val_accuracy", "lr" }
runfile.of_training = { step_loss = true }
for _, name in ipairs(runfile.epoch_series) do runfile.of_training[name] = true end

--- Where run files go unless the command line says.
runfile.FOLDER = "runs"

--- @class lavaflow.runfile
--- @field file string
--- @field live boolean a live file
--- @field entry table /entry, as core.h5_read gives it
local Run = {}
Run.__index = Run

--- Raises a mistake in what the command line asks for.
function runfile.misuse(format, ...) error({ code = 2, message = format:format(...) }, 0) end

--- "runs/x.live.h5" of "runs/x.h5".
function runfile.live_name(file) return (file:gsub("%.h5$", "")) .. ".live.h5" end

--- "runs/x.h5" of "runs/x.live.h5"; nil for other names.
function runfile.final_name(live)
  local stem = live:match "^(.+)%.live%.h5$"
  return stem and stem .. ".h5"
end

-- A live file may be replaced while it is opened.
local function read_root(file, live)
  local ok, root
  for _ = 1, live and 5 or 1 do
    ok, root = pcall(core.h5_read, file, "/", SHORT)
    if ok or not files.is_file(file) then break end
  end
  return ok, root
end

--- Reads one file.
--- @param file string
--- @return lavaflow.runfile?
--- @return string? message
--- @return boolean? other it is a sound HDF5 file, but not a run file
function runfile.read(file)
  local live = runfile.final_name(file) ~= nil
  local ok, root = read_root(file, live)
  if not ok then return nil, root:find(file, 1, true) and root or ("%s: %s"):format(file, root), false end
  local entry = root.entry
  if type(entry) ~= "table" or entry["@NX_class"] ~= "NXentry" then
    return nil, file .. ": expected a run file, but it has no /entry of class NXentry", true
  end
  return setmetatable({ file = file, live = live, entry = entry, kept = {} }, Run)
end

--- Reads a run file, or the live file beside it while there is none; raises when there is neither.
--- @param file string
--- @return lavaflow.runfile
function runfile.open(file)
  local live = runfile.live_name(file)
  local run, message = runfile.read(not files.is_file(file) and files.is_file(live) and live or file)
  return run or error(message, 0)
end

--- Paths of the .h5 files below a folder, without hidden ones and without folders that are links.
--- @param folder string
--- @param list string[]? gets them
--- @return string[]
function runfile.below(folder, list)
  list = list or {}
  for _, name in ipairs(files.list(folder)) do
    local path = folder .. "/" .. name
    local stat = name:sub(1, 1) ~= "." and uv.fs_lstat(path)
    if stat and stat.type == "directory" then
      runfile.below(path, list)
    elseif stat and name:find "%.h5$" then
      list[#list + 1] = path
    end
  end
  return list
end

--- Names of what is not an attribute, "step_2" before "step_10".
function runfile.members(group)
  local names = {}
  for _, name in ipairs(options.names(type(group) == "table" and group or {})) do
    if not name:find "@" and name ~= "shape" and name ~= "omitted" then names[#names + 1] = name end
  end
  table.sort(names, function(a, b)
    local m, n = tonumber(a:match "%d+$"), tonumber(b:match "%d+$")
    if m and n and m ~= n and a:match "^(.-)%d+$" == b:match "^(.-)%d+$" then return m < n end
    return a < b
  end)
  return names
end

function Run:uuid() return self.entry.entry_identifier_uuid end

--- Whether the writer of a live file still holds the lock that the file names; nil where it names none, or one that is
--- not ours to try.
function Run:goes_on()
  local path = self.entry["@lock"]
  if type(path) ~= "string" then return nil end
  if not files.is_file(path) then return false end
  local ok, lock = pcall(core.lock, path)
  if not ok then return nil end
  if lock then lock:close() end
  return lock == nil
end

--- "completed", "failed", …; of a live file "running" or "killed".
function Run:status()
  if not self.live then return tostring(self.entry.status or "unknown") end
  return self:goes_on() == false and "killed" or "running"
end

--- The steps in the order in which they ran.
--- @return table[]
function Run:steps()
  local list = {}
  for _, key in ipairs(runfile.members(self.entry)) do
    if key:find "^step_%d+$" and type(self.entry[key]) == "table" then list[#list + 1] = self.entry[key] end
  end
  return list
end

--- Whether metrics or evaluations of this name are a step's: NAME, NAME.2, NAME.teacher.
function runfile.is_of_step(name, step) return name == step.name or name:match "^(.-)%." == step.name end

-- Groups in a group, by steps in the order in which these ran.
local function by_steps(self, group)
  local names, list, taken = runfile.members(group), {}, {}
  local function take(wanted)
    for _, name in ipairs(names) do
      if not taken[name] and type(group[name]) == "table" and wanted(name) then
        taken[name] = true
        list[#list + 1] = name
      end
    end
  end
  for _, step in ipairs(self:steps()) do take(function(name) return runfile.is_of_step(name, step) end) end
  take(function() return true end)
  return list
end

--- Names of the trainings, and of the steps that have metrics of their own, in the order in which they ran.
function Run:trainings() return by_steps(self, self.entry.metrics) end

--- Names of the evaluations in the order in which they ran.
function Run:evaluations() return by_steps(self, self.entry.evaluations) end

-- The arrays of a group below /entry, all as long as the shortest, since a live file grows meanwhile; nil when one is
-- missing.
local function columns(self, path, group, names)
  if self.kept[path] then return self.kept[path] end
  for _, name in ipairs(names) do
    if type(group) ~= "table" or type(group[name]) ~= "table" then return nil end
    if group[name].omitted then group = core.h5_read(self.file, "/entry/" .. path, ALL) end
  end
  local count, found = math.huge, {}
  for _, name in ipairs(names) do count = math.min(count, #(group[name] or {})) end
  for _, name in ipairs(names) do found[name] = table.move(group[name] or {}, 1, count, 1, {}) end
  self.kept[path] = found
  return found
end

--- @param training string
--- @param name string of the metric
--- @return { step: integer[], time: number[], value: number[] }?
function Run:series(training, name)
  local group = (self.entry.metrics or {})[training]
  return columns(self, ("metrics/%s/%s"):format(training, name), type(group) == "table" and group[name],
    { "step", "time", "value" })
end

--- Names of a training's metrics that have values.
function Run:metrics(training)
  local list = {}
  for _, name in ipairs(runfile.members((self.entry.metrics or {})[training])) do
    local series = self:series(training, name)
    if series and #series.value > 0 then list[#list + 1] = name end
  end
  return list
end

--- @return number? # the last value of a metric
function Run:last(training, name)
  local series = self:series(training, name)
  return series and series.value[#series.value]
end

--- sha256 of a training's weights.
--- @return { step: integer[], sha256: string[] }?
function Run:digests(training)
  return columns(self, "digests/" .. training, (self.entry.digests or {})[training], { "step", "sha256" })
end

--- The log; files of older versions have no `step`.
--- @return { time: number[], level: string[], text: string[], step: string[]? }
function Run:log()
  local group = self.entry.log
  local names = { "time", "level", "text", type(group) == "table" and group.step and "step" or nil }
  return columns(self, "log", group, names) or { time = {}, level = {}, text = {} }
end

--- Seconds from the run's start to the last that it tells.
function Run:seconds()
  local last, ended = 0, not self.live
  for _, step in ipairs(self:steps()) do
    last, ended = math.max(last, tonumber(step.t_end) or 0), ended and step.t_end ~= nil
  end
  local times = self:log().time
  last = math.max(last, times[#times] or 0)
  for _, training in ipairs(ended and {} or self:trainings()) do
    for _, name in ipairs(self:metrics(training)) do
      local time = self:series(training, name).time
      last = math.max(last, time[#time])
    end
  end
  return last
end

--- Parameters by name.
function Run:parameters()
  local values, group = {}, self.entry.parameters
  for _, name in ipairs(runfile.members(group)) do values[name] = group[name] end
  return values
end

--- Names of the parameters that are not the same in all of these runs.
--- @param runs lavaflow.runfile[]
--- @return string[]
function runfile.differing(runs)
  local first, differs = runs[1] and runs[1]:parameters() or {}, {}
  for _, run in ipairs(runs) do
    local values = run:parameters()
    for name in pairs(options.merge(first, values)) do differs[name] = differs[name] or values[name] ~= first[name] end
  end
  local names = {}
  for _, name in ipairs(options.names(differs)) do
    if differs[name] then names[#names + 1] = name end
  end
  return names
end

--- Raises when a file that is to be written is the run file itself.
function Run:protect(output)
  if files.same(output, self.file) then runfile.misuse("-o %s: would replace the run file", output) end
end

--- Writes a file that was made of run files, and prints its name.
function runfile.write(output, text)
  local ok, message = files.prepare_output(output, false)
  if ok then ok, message = files.replace(output, text) end
  if not ok then error(message, 0) end
  tables.write(output, "\n")
end

--- "train" and "loss" of "train.loss"; only "loss" of "loss".
function runfile.split_metric(text)
  local training, name = text:match "^(.+)%.([^.]+)$"
  return training, name or text
end

local falling = { "loss", "mse", "mae", "error", "perplexity" }

--- Whether less of a metric is better.
function runfile.is_loss(metric)
  for _, word in ipairs(falling) do
    if metric:lower():find(word, 1, true) then return true end
  end
  return false
end

--- A run's name where several are shown: its id where the file is called TIME-ID.h5, and what differs.
--- @param run lavaflow.runfile
--- @param differing string[]
function runfile.label(run, differing)
  local stem = files.stem(runfile.final_name(run.file) or run.file)
  local parts, values = { stem:match "^%d+T%d+Z%-(%x+)$" or stem }, run:parameters()
  for _, name in ipairs(differing) do
    parts[#parts + 1] = ("%s=%s"):format(name, values[name] == nil and "" or tables.text(values[name]))
  end
  return table.concat(parts, " ")
end

return runfile
