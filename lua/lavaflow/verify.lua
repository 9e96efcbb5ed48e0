-- `lavaflow verify RUN`: takes script, modules, parameters and digests of inputs from a run file alone, runs its steps
-- again in a folder that vanishes, and compares what both told, from the first training step to the last weight.
local uv = require "luv"
local core = require "lavaflow.core"
local facts = require "lavaflow.facts"
local files = require "lavaflow.files"
local options = require "lavaflow.options"
local runfile = require "lavaflow.runfile"
local runner = require "lavaflow.runner"
local segments = require "lavaflow.segments"
local workflow = require "lavaflow.workflow"

local verify = {}

local LIMIT = 1 << 28 -- values of one array that are read
-- What another device may differ in: the first losses, and the losses of whole epochs.
local FIRST, FIRST_BOUND, EPOCH_BOUND = 100, 1e-4, 0.05

local function fail(code, ...) error({ code = code, message = (...) }, 0) end

local function read_run(file)
  local run, message = runfile.read(file)
  if not run then fail(runner.FAILED, message) end
  if not run.entry.script or not run.entry.step_1 then
    fail(runner.FAILED, file .. ": expected the run file of a workflow, but it holds no script with steps")
  end
  return run
end

-- What the run file says of itself and does not keep: members whose content is not what it was when it was written.
local function check_content(file, differs)
  for _, name in ipairs(core.run_check(file)) do
    differs(("/entry/%s: is not what the run wrote: its content has another digest"):format(name))
  end
end

-- The Lua sources by path, as the run had them.
local function sources_of(entry, differs)
  local sources, main = {}, entry["script@file_name"]
  local function add(what, text, name, sha256)
    if core.sha256(text) ~= sha256 then differs(("%s (%s): content %s, but the run file says %s"):format(what, name,
      core.sha256(text):sub(1, 12), sha256:sub(1, 12))) end
    sources[name] = text
  end
  add("script", entry.script, main, entry["script@sha256"])
  for key, text in pairs(entry.modules or {}) do
    if not key:find "@" then
      add("modules/" .. key, text, entry.modules[key .. "@file_name"], entry.modules[key .. "@sha256"])
    end
  end
  return sources, main
end

-- A parameter as the command line would set it; `default` gives its kind.
local function parameter_text(value, default)
  if type(default) == "boolean" then return tostring(value ~= 0) end
  if type(value) == "number" then return math.type(value) == "float" and ("%a"):format(value) or tostring(value) end
  return value
end

-- Every parameter with its value in the run, so that defaults do not matter.
local function overrides_of(run, sources, main)
  local probe, message = workflow.load(main, {}, { sources = sources, silent = true })
  if not probe then
    fail(runner.FAILED, ("%s: expected the run file of a workflow, but its script is none: %s"):format(run.file,
      message))
  end
  local overrides = {}
  for name, value in pairs(run:parameters()) do overrides[name] = parameter_text(value, probe.defaults[name]) end
  return overrides
end

-- sha256 by "file:/object" of what the run has read.
local function recorded_inputs(entry)
  local list = {}
  for key, name in pairs(entry.inputs or {}) do
    if not key:find "@" and type(name) == "string" then list[name] = entry.inputs[key .. "@sha256"] end
  end
  return list
end

-- Where an input is: where the command line says, where it was, or beside the run file.
local function find_input(path, name, given, run_file)
  local file, object = files.split_object(path)
  local instead = given.input[name] or given.input[path]
  for _, place in ipairs { instead or file, not instead and files.folder(run_file) .. "/" .. file or nil } do
    if files.is_file(place) then return object == "/" and place or place .. ":" .. object end
  end
  fail(runner.FAILED, ("input %s: %s: no such file; --input %s=FILE says where it is"):format(name, instead or file,
    name))
end

-- Points the steps' inputs to files whose content is that of the run.
local function bind_inputs(flow, order, entry, given, run_file, differs)
  local recorded = recorded_inputs(entry)
  for _, step in ipairs(order) do
    for _, name in ipairs(options.names(step.input)) do
      local path = step.input[name]
      if not flow.makers[files.normal(files.split_object(path))] then
        local file, object = files.split_object(path)
        local found = find_input(path, name, given, run_file)
        local sha256, message = files.digest(found)
        if not sha256 then fail(runner.FAILED, message) end
        local before = recorded[file .. ":" .. object]
        if sha256 ~= before then
          differs(('step "%s": input %s: %s: content %s, but the run read %s'):format(step.name, name, found,
            sha256:sub(1, 12), before and before:sub(1, 12) or "nothing"))
        end
        step.input[name] = found
      end
    end
  end
end

-- A device of this machine for one of the run.
local function find_device(recorded)
  local ok, info = pcall(core.find_device, recorded.uuid and recorded.backend .. ":" .. recorded.uuid or recorded.id)
  if not ok then ok, info = pcall(core.find_device, recorded.id) end
  return ok and info or core.find_device "auto"
end

-- Devices of one kind compute the same bits, so that it does not matter which of them works on which shards.
local function kind_of(info)
  local parts = {}
  for _, field in ipairs { "backend", "name", "driver_name", "driver_version", "kernels" } do
    parts[#parts + 1] = info[field] or ""
  end
  return table.concat(parts, "\n")
end

-- The ids of the devices that a step used together.
local function used_by(step)
  local ids = {}
  for id in (step.devices or step.device or ""):gmatch "[^,]+" do ids[#ids + 1] = id end
  return ids
end

-- Devices of the run by id, and those that take their places.
local function match_devices(system)
  local recorded, now = {}, {}
  for _, name in ipairs(runfile.members(system)) do
    if name:find "^device_%d+$" then
      recorded[system[name].id] = system[name]
      now[system[name].id] = find_device(system[name])
    end
  end
  return recorded, now
end

local function describe(infos)
  local about, seen = {}, {}
  for _, info in ipairs(infos) do
    if not seen[info.id] then
      about[#about + 1] = ("%s (%s, driver %s)"):format(info.id, info.name, info.driver_version or "none")
    end
    seen[info.id] = true
  end
  return #about > 0 and table.concat(about, ", ") or "no device"
end

-- Whether a training's bits follow from its shards and the kind of its devices; those of a fast sum depend on the
-- devices' number and on who has which shard.
local function repeats(training, instead)
  if training["@reduce"] ~= "fast" then return true end
  local _, commas = training["@devices"]:gsub(",", "")
  local count = commas + 1
  return training["@ranks"] == 1 and not training["@lost"] and (count == 1 or training["@balance"] == "even") and
    (not instead or #instead == count)
end

-- The devices of each step, whether all are of the kinds of the run, and what they are.
local function devices_of(run, given)
  local recorded, now = match_devices(run.entry.system)
  local instead = given.devices and core.find_devices(given.devices)
  local of_step, all, needed = {}, {}, {}
  local same = run.entry["program_name@version"] == core.version
  for _, step in ipairs(run:steps()) do
    local ids, specs = used_by(step), {}
    local kind = ids[1] and recorded[ids[1]] and kind_of(recorded[ids[1]])
    for i, id in ipairs(ids) do
      if not recorded[id] then
        fail(runner.FAILED, ("step %q: it ran on %s, which the run file's list of devices does not hold"):format(
          step.name, id))
      end
      needed[id] = true
      if not instead then specs[i], all[#all + 1] = now[id].id, now[id] end
      same = same and kind_of(recorded[id]) == kind and (instead or kind_of(now[id]) == kind)
    end
    for i, info in ipairs(kind and instead or {}) do
      specs[i], all[#all + 1] = info.id, info
      same = same and kind_of(info) == kind
    end
    of_step[step.name] = kind and specs or given.devices
  end
  for id in pairs(recorded) do same = same and needed[id] ~= nil end -- else a step went on on another device
  for _, training in ipairs(run:trainings()) do same = same and repeats(run.entry.metrics[training], instead) end
  return of_step, same, describe(all)
end

-- Into how many shards each training divided its batches: where the script leaves it to the number of devices, the
-- run's number counts.
local function shards_of(run)
  local shards = {}
  for _, training in ipairs(run:trainings()) do
    shards[training] = run.entry.metrics[training]["@shards"]
  end
  return shards
end

local function near(a, b, bound) return math.abs(a - b) <= bound * math.max(1, math.abs(a)) end

-- The first training step at which two series differ; `agrees` compares two values.
local function first_difference(a, b, agrees)
  for i = 1, math.max(#a.value, #b.value) do
    if a.step[i] ~= b.step[i] or not agrees(a.value[i], b.value[i], i) then
      local step = a.step[i] or b.step[i]
      return step, a.step[i] == step and a.value[i] or nil, b.step[i] == step and b.value[i] or nil
    end
  end
end

-- How the values of a series have to agree: bits, or the bound of another device.
local function agreement(same, name)
  if same then return function(x, y) return x == y or (x ~= x and y ~= y) end end
  if name == "step_loss" then return function(x, y, i) return i > FIRST or near(x, y, FIRST_BOUND) end end
  return function(x, y) return near(x, y, EPOCH_BOUND) end
end

local function exact(value) return value and facts.exact(value) or "nothing" end

-- Metrics of all trainings; the earliest difference of each training comes first.
local function compare_metrics(a, b, same, differs)
  local count = 0
  for _, training in ipairs(a:trainings()) do
    local earliest
    for _, name in ipairs(a:metrics(training)) do
      local one, other = a:series(training, name), b:series(training, name) or { step = {}, value = {} }
      count = count + #one.value
      local step, x, y = first_difference(one, other, agreement(same, name))
      if step and (not earliest or step < earliest.step) then
        earliest = { step = step, text = ("metrics/%s/%s: training step %d: %s, now %s"):format(training, name, step,
          exact(x), exact(y)) }
      end
    end
    if earliest then differs(earliest.text) end
  end
  return count
end

local function compare_digests(a, b, differs)
  for _, training in ipairs(runfile.members(a.entry.digests)) do
    local one, other = a:digests(training), b:digests(training) or { sha256 = {} }
    for i, step in ipairs(one.step) do
      if one.sha256[i] ~= other.sha256[i] then
        differs(("digests/%s: weights after training step %d: %s, now %s"):format(training, step,
          one.sha256[i]:sub(1, 12), (other.sha256[i] or "nothing"):sub(1, 12)))
        break
      end
    end
  end
end

-- Not part of what an evaluation says of the model.
local passing = { seconds = true, device = true }

local function compare_evaluations(a, b, same, differs)
  for _, name in ipairs(a:evaluations()) do
    local one, other = a.entry.evaluations[name], (b.entry.evaluations or {})[name] or {}
    for _, key in ipairs(runfile.members(one)) do
      local x, y = one[key], other[key]
      if type(x) == "table" and same and exact(x) ~= exact(y or {}) then
        differs(("evaluations/%s/%s: differs"):format(name, key))
      elseif type(x) == "number" and not passing[key] then
        if not y or not agreement(same, "scores")(x, y) then
          differs(("evaluations/%s/%s: %s, now %s"):format(name, key, exact(x), exact(y)))
        end
      end
    end
  end
end

local function first_element(a, b)
  for i = 1, math.max(#a, #b) do
    if a[i] ~= b[i] then return i, a[i], b[i] end
  end
end

-- The first tensor that differs, and where; whether there is one.
local function compare_tensors(file, again, path, differs)
  local a, b = core.h5_read(file, path, LIMIT), core.h5_read(again, path, LIMIT)
  for _, layer in ipairs(runfile.members(a)) do
    for _, tensor in ipairs(type(a[layer]) == "table" and runfile.members(a[layer]) or {}) do
      local one, other = a[layer][tensor], (b[layer] or {})[tensor]
      local at, x, y = first_element(type(one) == "table" and one or {}, type(other) == "table" and other or {})
      if at then
        differs(("%s/%s/%s: element %d: %s, now %s"):format(path:gsub("^/entry/", ""), layer, tensor, at - 1,
          exact(x), exact(y)))
        return true
      end
    end
  end
end

local function compare_models(a, b, differs)
  local count, results, again = 0, a.entry.result, b.entry.result or {}
  for _, step in ipairs(runfile.members(results)) do
    for _, name in ipairs(runfile.members(results[step])) do
      local path = ("/entry/result/%s/%s/model"):format(step, name)
      local kept = name:find "^checkpoint_%d+$" -- which depend on the clock
      count = count + (kept and 0 or 1)
      if kept then
        goto continue
      elseif not (again[step] and again[step][name]) then
        differs(("result/%s/%s: was not made again"):format(step, name))
      elseif core.h5_digest(a.file, path) ~= core.h5_digest(b.file, path) then
        if not compare_tensors(a.file, b.file, path, differs) then
          differs(("result/%s/%s: is another model"):format(step, name))
        end
      end
      ::continue::
    end
  end
  return count
end

local function run_again(it, scratch, given)
  return runner.run({ it.flow }, { names = it.names, devices_of = it.devices_of, shards = it.shards,
    root = scratch .. "/state", record = scratch .. "/run.h5", scratch = true, fresh = true, seconds = 1e9,
    quiet = not given.verbose, verbose = given.verbose })
end

-- What is the same for every way of checking: the workflow as it was, its inputs, its device.
local function prepare(file, given, scratch, differs)
  local run = read_run(file)
  local entry = run.entry
  if entry.status ~= "completed" then
    fail(runner.FAILED, ("%s: expected a run that completed, but its status is %s"):format(file, entry.status))
  end
  check_content(file, differs)
  local sources, main = sources_of(entry, differs)
  local flow, message = workflow.load(main, overrides_of(run, sources, main), { sources = sources, silent = true,
    folder = scratch .. "/files" })
  if not flow then fail(runner.FAILED, message) end
  local names = {}
  for i, step in ipairs(run:steps()) do names[i] = step.name end
  local order, wrong = workflow.select(flow, names)
  if not order then fail(runner.FAILED, wrong) end
  bind_inputs(flow, order, entry, given, file, differs)
  local of_step, same, about = devices_of(run, given)
  return { run = run, flow = flow, names = names, devices_of = of_step, shards = shards_of(run), same = same,
    about = about }
end

local function compare_all(file, given, scratch, it, differs)
  local code = run_again(it, scratch, given)
  if code ~= runner.DONE then fail(runner.FAILED, ("%s: could not be run again"):format(file)) end
  local other = read_run(scratch .. "/run.h5")
  local values = compare_metrics(it.run, other, it.same, differs)
  compare_evaluations(it.run, other, it.same, differs)
  if not it.same then return ("%d steps, %d values"):format(#it.names, values) end
  compare_digests(it.run, other, differs)
  return ("%d steps, %d values, %d models"):format(#it.names, values, compare_models(it.run, other, differs))
end

local function promise(same)
  if same then return "the same bits" end
  return ("the bound of another device (the first %d losses within %g, epochs within %g)"):format(FIRST, FIRST_BOUND,
    EPOCH_BOUND)
end

local function check(file, given, scratch)
  local differences = {}
  local function differs(text) differences[#differences + 1] = text end
  local it = prepare(file, given, scratch, differs)
  local compare = given.segments and segments.compare or compare_all
  local about = compare(file, given, scratch, it, differs)
  if #differences == 0 then
    io.stdout:write(("%s: verified: %s on %s: %s\n"):format(file, promise(it.same), it.about, about))
    return runner.DONE
  end
  for _, text in ipairs(differences) do io.stderr:write("lavaflow: ", file, ": ", text, "\n") end
  io.stdout:write(("%s: differs in %d places; checked for %s on %s\n"):format(file, #differences, promise(it.same),
    it.about))
  return runner.DIFFERS
end

local function remove_tree(path)
  local stat = uv.fs_lstat(path)
  if stat and stat.type == "directory" then
    for _, name in ipairs(files.list(path)) do remove_tree(path .. "/" .. name) end
    uv.fs_rmdir(path)
  else
    uv.fs_unlink(path)
  end
end

--- @param file string run file
--- @param given { input: table<string, string>, devices: string[]?, segments: integer?, verbose: boolean? }
--- @return integer exit status
function verify.run(file, given)
  local scratch, why = uv.fs_mkdtemp((os.getenv "TMPDIR" or "/tmp") .. "/lavaflow-verify-XXXXXX")
  if not scratch then
    io.stderr:write("lavaflow: ", why, "\n")
    return runner.FAILED
  end
  local ok, result = xpcall(check, function(failure)
    return type(failure) == "table" and failure or { code = runner.FAILED, message = tostring(failure) }
  end, file, given, scratch)
  remove_tree(scratch)
  if ok then return result end
  io.stderr:write("lavaflow: ", result.message, "\n")
  return result.code
end

return verify
