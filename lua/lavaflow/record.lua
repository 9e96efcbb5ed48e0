-- What a run file says beside the metrics, which the plugin writes itself: program, script, parameters, inputs, system,
-- steps, log, results. Paths and classes are those of the run file's contract, below /entry.
local core = require "lavaflow.core"
local files = require "lavaflow.files"
local options = require "lavaflow.options"
local results = require "lavaflow.results"

local record = {}

--- @class lavaflow.record: lavaflow.results
local Record = setmetatable({}, { __index = results.methods })
Record.__index = Record

local device_fields = { "id", "name", "uuid", "backend", "driver_name", "driver_version", "api_version", "kernels" }

--- Starts a record: program and system.
--- @return lavaflow.record
function record.create()
  local self = setmetatable({ run = core.run(), inputs = {}, devices = {}, modules = 0, steps = 0 }, Record)
  local run = self.run
  run:set("program_name", "lavaflow")
  run:set("program_name@version", core.version)
  run:group("system", "NXcollection")
  local uname = require("luv").os_uname()
  run:set("system/host", require("luv").os_gethostname())
  run:set("system/os", ("%s %s %s"):format(uname.sysname, uname.release, uname.machine))
  return self
end

local function set_source(run, path, name, text)
  run:set(path, text)
  run:set(path .. "@sha256", core.sha256(text))
  run:set(path .. "@file_name", name)
end

function Record:script(name, text)
  set_source(self.run, "script", name, text)
end

--- A Lua file that the script required from its own folder.
function Record:module(name, text)
  if self.modules == 0 then self.run:group("modules", "NXcollection") end
  self.modules = self.modules + 1
  set_source(self.run, "modules/" .. self.modules, name, text)
end

--- @param values table<string, number|string|boolean>
--- @param overrides string what the command line set: "epochs=3 lr=0.01"
function Record:parameters(values, overrides)
  self.run:group("parameters", "NXparameters")
  for _, name in ipairs(options.names(values)) do self.run:set("parameters/" .. name, values[name]) end
  self.run:set("parameters@overrides", overrides)
end

--- A file, or an object in one, that a step reads, with the sha256 of its content.
--- @param name string
--- @param sha256 string
function Record:input(name, sha256)
  if self.inputs[name] then return end
  if not next(self.inputs) then self.run:group("inputs", "NXcollection") end
  local path = "inputs/" .. #options.names(self.inputs) + 1
  local file, object = files.split_object(name)
  self.inputs[name] = sha256
  self.run:set(path, file .. ":" .. object)
  self.run:set(path .. "@sha256", sha256)
end

-- system/device_<i>, whose `count` says how often the device was opened at a time.
local function add_device(self, info, asked, count, step)
  local known = self.devices[info.id]
  if not known then
    known = { path = "system/device_" .. #options.names(self.devices), count = 0 }
    self.devices[info.id] = known
    self.run:group(known.path, "NXcollection")
    for _, field in ipairs(device_fields) do
      if info[field] then self.run:set(known.path .. "/" .. field, info[field]) end
    end
    self:log("info", ("device %s is %s (%s)"):format(asked, info.id, info.name), step and step.name)
  end
  if count > known.count then
    known.count = count
    self.run:set(known.path .. "/count", count)
  end
end

--- Devices that were used together; `asked` are those that the script gave.
--- @param infos lavaflow.device[]
--- @param asked string[]
--- @param step lavaflow.recorded_step?
function Record:devices_used(infos, asked, step)
  step = step or self.only_step
  local counts = {}
  for _, info in ipairs(infos) do counts[info.id] = (counts[info.id] or 0) + 1 end
  for i, info in ipairs(infos) do
    add_device(self, info, #asked == #infos and asked[i] or table.concat(asked, ","), counts[info.id], step)
  end
  if step then step:used(infos) end
end

--- @param level string
--- @param text string
--- @param step string? whose line it is; the run's own
function Record:log(level, text, step) self.run:log(level, text, step or "") end

--- @class lavaflow.recorded_step
local Step = {}
Step.__index = Step

--- Adds a step.
--- @param name string
--- @param started number seconds since the run's start
--- @return lavaflow.recorded_step
function Record:step(name, started)
  self.steps = self.steps + 1
  local step = setmetatable({ record = self, name = name, path = "step_" .. self.steps,
    most_devices = 1 }, Step)
  self.run:group(step.path, "NXprocess")
  step:set("name", name)
  step:set("sequence_index", self.steps)
  step:set("t_start", started)
  return step
end

--- A member of the step's group, or with "@…" an attribute.
function Step:set(field, value)
  self.record.run:set(self.path .. (field:find "^@" and "" or "/") .. field, value)
end

--- Devices that it used together: `device` is the first of those that it used last, `devices` the longest list.
--- @param infos lavaflow.device[]
function Step:used(infos)
  self:set("device", infos[1].id)
  if #infos <= self.most_devices then return end
  self.most_devices = #infos
  self:set("devices", results.device_ids(infos))
end

-- A model file's content becomes part of the run file.
local function is_model(file)
  local ok, content = pcall(core.h5_read, file, "/", 1)
  return ok and content["@format"] == "lavaflow-model"
end

--- @param status string "completed", "up to date", "failed" or "interrupted"
--- @param outputs table<string, string> those that the step wrote
function Step:finish(status, outputs)
  local run = self.record.run
  self:set("t_end", run:time())
  self:set("status", status)
  if next(outputs) then run:group(self.path .. "/outputs", "NXcollection") end
  for _, key in ipairs(options.names(outputs)) do
    self:set("outputs/" .. key, outputs[key])
    if is_model(outputs[key]) then run:model(self.name, key, outputs[key]) end
  end
  self.record:log("info", ("step %s: %s"):format(self.name, status), self.name)
end

function Record:save(path, status, exit_code)
  self.run:save(path, status, exit_code)
end

-- A parameter's value: plain ones as they are, arrays of numbers as text, "1 3", of texts as "a,b"; nil for what else
-- options hold.
local function parameter(value)
  local kind = type(value)
  if kind == "number" or kind == "string" or kind == "boolean" then return value end
  if kind ~= "table" then return nil end
  if type(value[1]) == "string" then return table.concat(value, ",") end
  return math.type(value[1]) and table.concat(value, " ") or nil
end

-- `kind` goes by `name`, the other options by their own names after `prefix`.
local function add_parameters(values, source, name, prefix)
  for _, key in ipairs(options.names(source)) do
    values[key == "kind" and name or prefix .. key] = parameter(source[key])
  end
end

-- A file that a training outside a workflow reads.
local function add_input(self, name)
  local sha256, message = files.digest(name)
  if sha256 then self:input(name, sha256) else self:log("warn", message) end
end

--- A training outside a workflow: its options are the parameters, its script is what the interpreter runs.
function Record:training(t)
  local name = type(arg) == "table" and arg[0]
  local text = name and files.read(name)
  if text then self:script(name, text) end
  local values = {}
  add_parameters(values, t, nil, "")
  add_parameters(values, t.optimizer, "optimizer", "")
  if t.optimizer.schedule then add_parameters(values, t.optimizer.schedule, "schedule", "schedule_") end
  self:parameters(values, "")
  for _, part in ipairs { t.data, t.validation } do
    for _, path in ipairs { part.path, part.y_path or part.path, part.w_path or part.path } do add_input(self, path) end
  end
  self.only_step = self:step(t.name or "train", self.run:time())
end

--- Its end: `result` is the history, or the error.
function Record:finish_training(path, ok, result)
  local status = ok and "completed" or core.interrupted() and "interrupted" or "failed"
  if not ok then self:log("error", tostring(result)) end
  self.only_step:finish(status, {})
  self:save(path, status, ok and 0 or 1)
end

return record
