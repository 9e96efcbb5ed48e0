-- `lavaflow show` and `lavaflow devices`: run files and devices as text.
local cjson = require "cjson"
local core = require "lavaflow.core"
local options = require "lavaflow.options"

local show = {}

local function write(...)
  io.stdout:write(...)
end

local function size(bytes)
  return bytes >= 2^30 and ("%.1f GiB"):format(bytes / 2^30) or ("%.0f MiB"):format(bytes / 2^20)
end

-- Columns as wide as their widest cell, two spaces between.
local function write_table(rows, indent)
  local widths = {}
  for _, row in ipairs(rows) do
    for i, cell in ipairs(row) do widths[i] = math.max(widths[i] or 0, #cell) end
  end
  for _, row in ipairs(rows) do
    local cells = {}
    for i, cell in ipairs(row) do cells[i] = cell .. (" "):rep(widths[i] - #cell) end
    write(indent, (table.concat(cells, "  "):gsub(" +$", "")), "\n")
  end
end

--- @param list table[] as lf.devices()
--- @param json boolean?
function show.devices(list, json)
  if json then
    write(cjson.encode(list), "\n")
    return
  end
  local rows = { { "device", "name", "driver", "memory", "" } }
  for _, d in ipairs(list) do
    local driver = ("%s %s"):format(d.driver_name or "", d.driver_version or "")
    local note = d.unavailable and "unavailable: " .. d.unavailable or d.hardware_gpu and "GPU"
      or d.units > 0 and d.units .. " threads" or "software"
    rows[#rows + 1] = { d.id or d.backend, d.name or "", driver, d.memory > 0 and size(d.memory) or "", note }
  end
  write_table(rows, "")
end

local function line(label, text)
  if text and text ~= "" then write(("%-11s %s\n"):format(label, text)) end
end

local function number(value)
  return math.type(value) == "integer" and tostring(value) or ("%.6g"):format(value)
end

-- Names of what is not an attribute.
local function members(group)
  local names = {}
  for _, name in ipairs(options.names(group or {})) do
    if not name:find "@" and name ~= "shape" then names[#names + 1] = name end
  end
  table.sort(names, function(a, b)
    local m, n = tonumber(a:match "%d+$"), tonumber(b:match "%d+$")
    if m and n and m ~= n then return m < n end
    return a < b
  end)
  return names
end

local function show_pairs(label, group)
  local parts = {}
  for _, name in ipairs(members(group)) do
    local value = group[name]
    parts[#parts + 1] = ("%s = %s"):format(name, type(value) == "number" and number(value) or tostring(value))
  end
  line(label, table.concat(parts, ", "))
end

local epoch_series = { "loss", "accuracy", "val_loss", "val_accuracy", "lr" }
local TABLE_ROWS = 12

-- A training's values by epoch: the first ones, the last one, and of the rest as many as fit one screen.
local function show_epochs(series, names)
  local first = series[names[1]].value
  local rows = { table.move(names, 1, #names, 2, { "epoch" }) }
  local skip = math.max(1, math.ceil(#first / TABLE_ROWS))
  for epoch = 1, #first do
    if epoch == 1 or epoch == #first or epoch % skip == 0 then
      local row = { tostring(epoch) }
      for _, name in ipairs(names) do row[#row + 1] = number(series[name].value[epoch] or 0 / 0) end
      rows[#rows + 1] = row
    end
  end
  write_table(rows, "  ")
end

local function show_metrics(name, series, digests)
  local names, own = {}, {}
  for _, key in ipairs(epoch_series) do
    if series[key] and #(series[key].value or {}) > 0 then names[#names + 1] = key end
  end
  for _, key in ipairs(members(series)) do
    local value = series[key].value
    local is_epoch = key == "step_loss"
    for _, other in ipairs(names) do is_epoch = is_epoch or other == key end
    if not is_epoch and value and #value > 0 then own[#own + 1] = ("%s %s"):format(key, number(value[#value])) end
  end
  write("\n", name, "\n")
  if #names > 0 then show_epochs(series, names) end
  local digest = digests and digests.sha256[#digests.sha256]
  if digest then write("  weights sha256 ", digest, "\n") end
  for _, text in ipairs(own) do write("  ", text, "\n") end
end

-- The scores of an evaluation that are numbers.
local function show_scores(name, scores)
  local parts = {}
  for _, key in ipairs(members(scores)) do
    local value = scores[key]
    if type(value) == "number" and key ~= "seconds" then parts[#parts + 1] = ("%s %s"):format(key, number(value)) end
  end
  write("\n", name, "  on ", scores["@data"] or "", "\n  ", table.concat(parts, ", "), "\n")
end

-- What of a group, metrics or evaluations, is a step's: NAME, NAME.2, NAME.teacher.
local function each_of_step(group, step, fn)
  for _, name in ipairs(members(group)) do
    if name == step.name or name:match "^(.-)%." == step.name then fn(name, group[name]) end
  end
end

-- The steps in the order in which they ran.
local function steps_of(entry)
  local list = {}
  for _, key in ipairs(members(entry)) do
    if key:find "^step_%d+$" then list[#list + 1] = entry[key] end
  end
  return list
end

local function show_steps(entry)
  for i, step in ipairs(steps_of(entry)) do
    line(i == 1 and "steps" or "", ("%s  %s in %.2f s%s"):format(step.name, step.status, step.t_end - step.t_start,
      step.device and " on " .. step.device or ""))
  end
end

-- "label text @sha256" lines of a group whose members name files.
local function show_files(label, group)
  for i, name in ipairs(members(group)) do
    local digest = group[name .. "@sha256"]
    line(i == 1 and label or "", group[name] .. (digest and "  sha256 " .. digest or ""))
  end
end

local function show_outputs(entry)
  local label = "outputs"
  for _, step in ipairs(steps_of(entry)) do
    for _, name in ipairs(members(step.outputs)) do
      line(label, step.outputs[name])
      label = ""
    end
  end
end

local function show_errors(log)
  if not log or not log.text then return end
  for i = 1, #log.text do
    if log.level[i] == "error" or log.level[i] == "warn" then line(log.level[i], log.text[i]) end
  end
end

--- Prints a summary of a run file. Raises when it is none.
--- @param file string
function show.run(file)
  local entry = core.h5_read(file, "/", 10000).entry
  if type(entry) ~= "table" or entry["@NX_class"] ~= "NXentry" then
    error(file .. ": expected a run file, but it has no /entry of class NXentry", 0)
  end
  line("run", file)
  line("workflow", entry["script@file_name"])
  line("status", ("%s, exit status %s"):format(entry.status, entry.exit_code))
  line("time", ("%s to %s"):format(entry.start_time, entry.end_time))
  line("program", ("%s %s"):format(entry.program_name, entry["program_name@version"] or ""))
  local system = entry.system or {}
  line("host", ("%s, %s"):format(system.host, system.os))
  for _, key in ipairs(members(system)) do
    local device = key:find "^device_" and system[key]
    if device then line("device", ("%s: %s (%s %s)"):format(device.id, device.name, device.driver_name or "",
      device.driver_version or "")) end
  end
  show_pairs("parameters", entry.parameters)
  line("overrides", entry.parameters and entry.parameters["@overrides"])
  show_files("inputs", entry.inputs)
  show_steps(entry)
  show_outputs(entry)
  show_errors(entry.log)
  for _, step in ipairs(steps_of(entry)) do
    each_of_step(entry.metrics, step, function(name, series)
      show_metrics(name, series, entry.digests and entry.digests[name])
    end)
    each_of_step(entry.evaluations, step, show_scores)
  end
end

return show
