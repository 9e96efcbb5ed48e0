-- `lavaflow diff A B`: what differs between two runs, section by section. When they ran, and how long, is left out.
local options = require "lavaflow.options"
local linediff = require "lavaflow.linediff"
local runfile = require "lavaflow.runfile"
local tables = require "lavaflow.tables"

local diff = {}

local members = runfile.members

local function short(sha256) return type(sha256) == "string" and sha256:sub(1, 12) or "nothing" end

local function same(a, b) return a == b or (a ~= a and b ~= b) end

-- "0.1 -> 0.2", with as many digits as it takes to tell them apart.
local function arrow(a, b)
  local function text(value, number)
    if value == nil then return "not there" end
    return type(value) == "number" and number(value) or tostring(value)
  end
  local old, new = text(a, tables.number), text(b, tables.number)
  if old == new then old, new = text(a, tables.exact), text(b, tables.exact) end
  return ("%s -> %s"):format(old, new)
end

-- Names of both lists, in the order of the first and then of the second.
local function union(a, b)
  local list, taken = {}, {}
  for _, names in ipairs { a, b } do
    for _, name in ipairs(names) do
      if not taken[name] then list[#list + 1] = name end
      taken[name] = true
    end
  end
  return list
end

local function group(run, name) return type(run.entry[name]) == "table" and run.entry[name] or {} end

local sections = {}

sections[1] = { "program", function(a, b, add)
  local function version(run)
    return ("%s %s"):format(run.entry.program_name, run.entry["program_name@version"] or "")
  end
  if version(a) ~= version(b) then add(arrow(version(a), version(b))) end
end }

-- The Lua sources: the script, and modules by the path that they were read from.
local function sources(run)
  local texts, modules = { script = run.entry.script }, group(run, "modules")
  for _, key in ipairs(members(modules)) do texts[modules[key .. "@file_name"] or key] = modules[key] end
  return texts
end

sections[2] = { "script", function(a, b, add)
  local old, new = sources(a), sources(b)
  for _, name in ipairs(options.names(options.merge(old, new))) do
    local x, y = old[name], new[name]
    if x ~= y then
      local is_script = name == "script"
      add("--- " .. (x and (is_script and a.entry["script@file_name"] or name) or "not there"))
      add("+++ " .. (y and (is_script and b.entry["script@file_name"] or name) or "not there"))
      for _, line in ipairs(linediff.unified(x or "", y or "")) do add(line) end
    end
  end
end }

sections[3] = { "parameters", function(a, b, add)
  local old, new = a:parameters(), b:parameters()
  for _, name in ipairs(runfile.differing { a, b }) do add(("%s: %s"):format(name, arrow(old[name], new[name]))) end
end }

sections[4] = { "inputs", function(a, b, add)
  local function inputs(run)
    local digests, paths, all = {}, {}, group(run, "inputs")
    for i, key in ipairs(members(all)) do
      paths[i] = all[key]
      digests[all[key]] = all[key .. "@sha256"]
    end
    return digests, paths
  end
  local old, old_paths = inputs(a)
  local new, new_paths = inputs(b)
  for _, path in ipairs(union(old_paths, new_paths)) do
    if old[path] and new[path] and old[path] ~= new[path] then
      add(("%s: content %s -> %s"):format(path, short(old[path]), short(new[path])))
    elseif old[path] ~= new[path] then
      add(("%s: %s"):format(path, arrow(old[path] and "read", new[path] and "read")))
    end
  end
end }

local device_fields = { "name", "uuid", "backend", "driver_name", "driver_version", "api_version", "kernels" }

sections[5] = { "devices", function(a, b, add)
  local function devices(run)
    local by_id, ids, system = {}, {}, group(run, "system")
    for _, key in ipairs(members(system)) do
      if key:find "^device_%d+$" then
        ids[#ids + 1] = system[key].id
        by_id[system[key].id] = system[key]
      end
    end
    return by_id, ids
  end
  local old, old_ids = devices(a)
  local new, new_ids = devices(b)
  for _, id in ipairs(union(old_ids, new_ids)) do
    if not (old[id] and new[id]) then
      add(("%s: %s"):format(id, arrow(old[id] and old[id].name, new[id] and new[id].name)))
    else
      for _, field in ipairs(device_fields) do
        local x, y = old[id][field], new[id][field]
        if field == "kernels" and x and y and x ~= y then x, y = short(x), short(y) end
        if x ~= y then add(("%s: %s: %s"):format(id, field, arrow(x, y))) end
      end
    end
  end
end }

sections[6] = { "steps", function(a, b, add)
  local function steps(run)
    local by_name, names = {}, {}
    for i, step in ipairs(run:steps()) do
      names[i] = step.name
      by_name[step.name] = step
    end
    return by_name, names
  end
  local old, old_names = steps(a)
  local new, new_names = steps(b)
  if a:status() ~= b:status() then add("the run: " .. arrow(a:status(), b:status())) end
  for _, name in ipairs(union(old_names, new_names)) do
    local x, y = old[name] or {}, new[name] or {}
    if x.status ~= y.status then add(("%s: %s"):format(name, arrow(x.status, y.status))) end
    local on, now = x.devices or x.device, y.devices or y.device
    if on ~= now and x.name and y.name then add(("%s: on %s"):format(name, arrow(on, now))) end
    for _, field in ipairs(x.name and y.name and { "code", "key" } or {}) do
      if x[field] ~= y[field] then add(("%s: %s %s -> %s"):format(name, field, short(x[field]), short(y[field]))) end
    end
  end
end }

-- The first training step at which two series differ, with both values; one may have none there.
local function first_difference(old, new, column)
  for i = 1, math.max(#old.step, #new.step) do
    local step = old.step[i] or new.step[i]
    if old.step[i] ~= new.step[i] then step = math.min(old.step[i] or math.huge, new.step[i] or math.huge) end
    local x = old.step[i] == step and old[column][i] or nil
    local y = new.step[i] == step and new[column][i] or nil
    if not same(x, y) then return step, x, y end
  end
end

local nothing = { step = {}, value = {}, sha256 = {} }

local function compare_series(training, name, old, new, add)
  local step, x, y = first_difference(old, new, "value")
  if not step then return end
  local what = ("%s.%s: "):format(training, name)
  local last, now = old.value[#old.value], new.value[#new.value]
  if name ~= "step_loss" and not same(last, now) then add(what .. arrow(last, now)) end
  if name == "step_loss" or same(last, now) then
    add(("%sfrom training step %d on: %s"):format(what, step, arrow(x, y)))
  end
end

sections[7] = { "metrics", function(a, b, add)
  for _, training in ipairs(union(a:trainings(), b:trainings())) do
    for _, name in ipairs(union(a:metrics(training), b:metrics(training))) do
      compare_series(training, name, a:series(training, name) or nothing, b:series(training, name) or nothing, add)
    end
  end
end }

-- Equal ones are told too, where anything else differs.
sections[8] = { "weights", function(a, b, add, tell)
  for _, training in ipairs(union(a:trainings(), b:trainings())) do
    local old, new = a:digests(training) or nothing, b:digests(training) or nothing
    local step, x, y = first_difference(old, new, "sha256")
    if step then
      add(("%s: after training step %d: %s -> %s"):format(training, step, short(x), short(y)))
      local last, now = old.sha256[#old.sha256], new.sha256[#new.sha256]
      if last and last == now then tell(("%s: equal at the end"):format(training)) end
    elseif #old.step > 0 then
      tell(("%s: equal, %s"):format(training, short(old.sha256[#old.sha256])))
    end
  end
end }

sections[9] = { "evaluations", function(a, b, add)
  for _, name in ipairs(union(a:evaluations(), b:evaluations())) do
    local old, new = group(a, "evaluations")[name] or {}, group(b, "evaluations")[name] or {}
    for _, about in ipairs { "data", "loss" } do
      local x, y = old["@" .. about], new["@" .. about]
      if x ~= y then add(("%s: %s: %s"):format(name, about, arrow(x, y))) end
    end
    for _, score in ipairs(union(members(old), members(new))) do
      local x, y = old[score], new[score]
      if (type(x) == "number" or type(y) == "number") and score ~= "seconds" and not same(x, y) then
        add(("%s.%s: %s"):format(name, score, arrow(x, y)))
      end
    end
  end
end }

--- @param given { a: string, b: string, exit_code: boolean? }
--- @return integer exit status
function diff.print(given)
  local a, b = runfile.open(given.a), runfile.open(given.b)
  local pieces, differs = {}, false
  for _, section in ipairs(sections) do
    local lines, found = {}, false
    local function tell(line) lines[#lines + 1] = "  " .. line .. "\n" end
    section[2](a, b, function(line)
      found = true
      tell(line)
    end, tell)
    if #lines > 0 then pieces[#pieces + 1] = section[1] .. "\n" .. table.concat(lines) end
    differs = differs or found
  end
  tables.write(differs and ("--- %s\n+++ %s\n\n%s"):format(a.file, b.file, table.concat(pieces, "\n"))
    or "no differences\n")
  return differs and given.exit_code and 1 or 0
end

return diff
