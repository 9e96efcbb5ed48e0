-- What trainings and evaluations write into a run beside the series that the plugin writes itself. In a step's process
-- the run is a journal, and the runner's record takes what it says.
local cjson = require "cjson"
local options = require "lavaflow.options"

local results = {}

--- @class lavaflow.results
--- @field run userdata the plugin's run, which trainings write to
local Results = {}
Results.__index = Results
results.methods = Results

--- @param run userdata a journal
--- @return lavaflow.results
function results.create(run) return setmetatable({ run = run }, Results) end

function Results:log(level, text) self.run:log(level, text) end

--- Tells the runner something that has no place of its own in a run.
--- @param note table
function Results:note(note) self.run:note(cjson.encode(note)) end

--- "cpu", "cpu#2" of a device that stands several times in a training's list.
--- @param device lavaflow.training_device
--- @return string
function results.device_name(device)
  return device.opened > 0 and ("%s#%d"):format(device.id, device.opened + 1) or device.id
end

--- Devices that are used together; `asked` are those that the script gave.
--- @param infos lavaflow.device[]
--- @param asked string[]
function Results:devices_used(infos, asked)
  self:note { devices = infos, asked = asked }
end

-- "vulkan:0,cpu", as the command line takes it.
function results.device_ids(devices)
  local ids = {}
  for i, device in ipairs(devices) do ids[i] = device.id end
  return table.concat(ids, ",")
end

--- One value of a step's own metric, which counts from 1.
function Results:metric(step, name, at, value)
  self.run:series(step, name, { at }, { self.run:time() }, { value })
end

-- What each of several devices did: arrays in the order of the attribute `devices`.
local function add_devices(self, t, history, set)
  local busy, shards, lost = {}, {}, {}
  for i, device in ipairs(history.devices) do
    busy[i], shards[i] = device.busy, device.shards
    if device.lost then lost[#lost + 1] = results.device_name(device) end
  end
  local path = ("metrics/%s@"):format(t.name)
  self.run:set_array(path .. "busy", { #busy }, busy, "f64")
  self.run:set_array(path .. "shards_held", { #shards }, shards, "i64")
  set("exchange_seconds", history.exchange_seconds)
  if #lost > 0 then set("lost", table.concat(lost, ",")) end
end

--- What a training took and why it ended, and what a distillation learnt from.
--- @param t table the training's options
--- @param history lavaflow.history
function Results:trained(t, history)
  local function set(name, value)
    if value ~= nil then self.run:set(("metrics/%s@%s"):format(t.name, name), value) end
  end
  for _, name in ipairs { "submissions", "dispatches", "seconds", "stopped", "best_epoch", "best_value", "shards",
    "ranks" } do
    set(name, history[name])
  end
  set("devices", results.device_ids(history.devices))
  if history.shards > 1 then
    set("reduce", t.reduce)
    set("balance", t.balance)
  end
  if #history.devices > 1 then add_devices(self, t, history, set) end
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
function Results:evaluated(name, scores, about)
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

return results
