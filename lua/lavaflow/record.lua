-- What a run file says beside the metrics, which the plugin writes itself: program, script, parameters, inputs, system,
-- steps, log, results. Paths and classes are those of the run file's contract, below /entry.
local core = require "lavaflow.core"
local files = require "lavaflow.files"
local options = require "lavaflow.options"

local record = {}

--- @class lavaflow.record
--- @field run userdata the plugin's run, which trainings write to
local Record = {}
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

--- A file, or an object in one, that a step reads; it is digested once.
function Record:input(name)
  if self.inputs[name] then return end
  if not next(self.inputs) then self.run:group("inputs", "NXcollection") end
  local count = #options.names(self.inputs) + 1
  local file, object = files.split_object(name)
  local path = "inputs/" .. count
  self.run:set(path, file .. ":" .. object)
  local digest, message = files.digest(name)
  self.inputs[name] = digest or "unread"
  if digest then self.run:set(path .. "@sha256", digest) else self:log("warn", message) end
end

--- A device that was used; `asked` is the device as the script gave it.
function Record:device(info, asked)
  if self.step_path then self.run:set(self.step_path .. "/device", info.id) end
  if self.devices[info.id] then return end
  local path = "system/device_" .. #options.names(self.devices)
  self.devices[info.id] = info
  self.run:group(path, "NXcollection")
  for _, field in ipairs(device_fields) do
    if info[field] then self.run:set(path .. "/" .. field, info[field]) end
  end
  self:log("info", ("device %s is %s (%s)"):format(asked, info.id, info.name))
end

function Record:device_by_id(id, asked)
  for _, info in ipairs(self.devices[id] and {} or core.devices()) do
    if info.id == id then self:device(info, asked) end
  end
  if self.step_path then self.run:set(self.step_path .. "/device", id) end
end

function Record:begin_step(name)
  self.steps = self.steps + 1
  self.step_path, self.step_name = "step_" .. self.steps, name
  self.run:group(self.step_path, "NXprocess")
  self.run:set(self.step_path .. "/name", name)
  self.run:set(self.step_path .. "/sequence_index", self.steps)
  self.run:set(self.step_path .. "/t_start", self.run:time())
  self:log("info", ("step %s starts"):format(name))
end

-- A value as text that tells all values apart; floats to the last bit.
local function exact(value)
  if math.type(value) == "float" then return ("%a"):format(value) end
  return type(value) == "table" and options.show(value) or ("%q"):format(value)
end

--- What the step in progress depends on: the sha256 of its code, and of that with its parameters, the content of its
--- inputs and the plugin's version.
--- @param step lavaflow.step
--- @param source string the text of its `run`
function Record:identify(step, source)
  local parts = { core.version, core.sha256(source) }
  for _, name in ipairs(options.names(step.params)) do
    parts[#parts + 1] = name .. " = " .. exact(step.params[name])
  end
  for _, name in ipairs(options.names(step.input)) do
    parts[#parts + 1] = name .. " : " .. self.inputs[step.input[name]]
  end
  self.run:set(self.step_path .. "/code", parts[2])
  self.run:set(self.step_path .. "/key", core.sha256(table.concat(parts, "\n")))
end

-- A model file's content becomes part of the run file.
local function is_model(file)
  local ok, content = pcall(core.h5_read, file, "/", 1)
  return ok and content["@format"] == "lavaflow-model"
end

--- @param status string "completed", "failed" or "interrupted"
--- @param outputs table<string, string> those that the step wrote
function Record:end_step(status, outputs)
  local name = self.step_name
  self.run:set(self.step_path .. "/t_end", self.run:time())
  self.run:set(self.step_path .. "/status", status)
  if next(outputs) then self.run:group(self.step_path .. "/outputs", "NXcollection") end
  for _, key in ipairs(options.names(outputs)) do
    self.run:set(self.step_path .. "/outputs/" .. key, outputs[key])
    if is_model(outputs[key]) then self.run:model(name, key, outputs[key]) end
  end
  self.step_path, self.step_name = nil, nil
  self:log("info", ("step %s %s"):format(name, status))
end

function Record:log(level, text)
  self.run:log(level, text)
end

--- One value of a step's own metric, which counts from 1.
function Record:metric(step, name, at, value)
  self.run:series(step, name, { at }, { self.run:time() }, { value })
end

function Record:save(path, status, exit_code)
  self.run:save(path, status, exit_code)
end

--- What a training took and why it ended, and what a distillation learnt from.
--- @param t table the training's options
--- @param history lavaflow.history
function Record:trained(t, history)
  local function set(name, value)
    if value ~= nil then self.run:set(("metrics/%s@%s"):format(t.name, name), value) end
  end
  for _, name in ipairs { "submissions", "dispatches", "seconds", "stopped", "best_epoch", "best_value" } do
    set(name, history[name])
  end
  set("monitor", t.monitor)
  for i, teacher in ipairs(t.teachers or {}) do
    set("teacher_" .. i, teacher:digest())
    set(("teacher_%d_run"):format(i), teacher:run())
  end
  for i, hint in ipairs(t.hints or {}) do
    set("hint_" .. i, ("%s matches %s of the teacher, weight %.17g"):format(hint.student, hint.teacher, hint.weight))
  end
end

-- Shape and values, row-major, of an array of numbers or of such arrays.
local function flatten(array)
  if type(array[1]) ~= "table" then return { #array }, array end
  local values = {}
  for _, row in ipairs(array) do table.move(row, 1, #row, #values + 1, values) end
  return { #array, #array[1] }, values
end

local function number_type(values)
  for _, value in ipairs(values) do
    if math.type(value) ~= "integer" then return "f64" end
  end
  return "i64"
end

--- The scores of an evaluation, whole.
--- @param name string "STEP", "STEP.2", "STEP.NAME"
--- @param scores lavaflow.scores
--- @param about table<string, string> what was evaluated, on what
function Record:evaluated(name, scores, about)
  local path = "evaluations/" .. name
  self.run:group("evaluations", "NXcollection")
  self.run:group(path, "NXcollection")
  for _, key in ipairs(options.names(about)) do self.run:set(path .. "@" .. key, about[key]) end
  for _, key in ipairs(options.names(scores)) do
    local value = scores[key]
    if type(value) == "table" then
      local shape, values = flatten(value)
      self.run:set_array(path .. "/" .. key, shape, values, number_type(values))
    else
      self.run:set(path .. "/" .. key, value)
    end
  end
end

-- A parameter's value: plain ones as they are, arrays of numbers as text, "1 3"; nil for what else options hold.
local function parameter(value)
  local kind = type(value)
  if kind == "number" or kind == "string" or kind == "boolean" then return value end
  return kind == "table" and math.type(value[1]) and table.concat(value, " ") or nil
end

-- `kind` goes by `name`, the other options by their own names after `prefix`.
local function add_parameters(values, source, name, prefix)
  for _, key in ipairs(options.names(source)) do
    values[key == "kind" and name or prefix .. key] = parameter(source[key])
  end
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
    self:input(part.path)
    if part.y_path then self:input(part.y_path) end
    if part.w_path then self:input(part.w_path) end
  end
  self:begin_step(t.name or "train")
end

--- Its end: `result` is the history, or the error.
function Record:finish_training(path, ok, result)
  local status = ok and "completed" or core.interrupted() and "interrupted" or "failed"
  if not ok then self:log("error", tostring(result)) end
  self:end_step(status, {})
  self:save(path, status, ok and 0 or 1)
end

return record
