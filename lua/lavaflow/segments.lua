-- `lavaflow verify --segments N`: checks N stretches of trainings between the checkpoints that the run file holds.
local core = require "lavaflow.core"
local files = require "lavaflow.files"
local options = require "lavaflow.options"
local runfile = require "lavaflow.runfile"
local runner = require "lavaflow.runner"

local segments = {}

-- Every stretch: of a training from one checkpoint, or its start, to the next.
local function stretches_of(entry)
  local list = {}
  for _, training in ipairs(options.names(entry.result or {})) do
    local ends = {}
    for name in pairs(type(entry.result[training]) == "table" and entry.result[training] or {}) do
      ends[#ends + 1] = math.tointeger(tonumber(name:match "^checkpoint_(%d+)$"))
    end
    table.sort(ends)
    for i, stop in ipairs(ends) do list[#list + 1] = { training = training, from = ends[i - 1], stop = stop } end
  end
  return list
end

-- So many of them, as far apart as can be.
local function choose(list, count)
  if count >= #list then return list end
  local chosen = {}
  for i = 1, count do chosen[i] = list[math.floor((i - 0.5) * #list / count) + 1] end
  return chosen
end

local function group_of(training, step) return ("/entry/result/%s/checkpoint_%d"):format(training, step) end

-- The step that a training belongs to: "step" of "step.teacher".
local function step_of(flow, training)
  return flow.by_name[training] or flow.by_name[training:match "^(.-)%."]
end

-- What other steps made is taken from the run file.
local function fill_inputs(file, it, step)
  for _, name in ipairs(options.names(step.input)) do
    local path = files.split_object(step.input[name])
    local maker = it.flow.makers[files.normal(path)]
    if maker and not files.is_file(path) then
      local output
      for key, made in pairs(maker.output) do output = made == path and key or output end
      local group = ("/entry/result/%s/%s"):format(maker.name, output)
      local ok, message = files.make_folder(files.folder(path))
      if ok then ok, message = pcall(core.run_extract, file, group, path) end
      if not ok then
        error({ code = runner.FAILED, message = ('step "%s": input %s: step "%s" made it, and the run file does not '
          .. "hold it (%s): verify without --segments"):format(step.name, name, maker.name, message) }, 0)
      end
    end
  end
end

local function compare_losses(it, other, stretch, differs)
  local function losses(run)
    local series, by_step = run:series(stretch.training, "step_loss") or { step = {} }, {}
    for i, step in ipairs(series.step) do by_step[step] = series.value[i] end
    return by_step
  end
  local a, b = losses(it.run), losses(other)
  for step = (stretch.from or 0) + 1, stretch.stop do
    if a[step] ~= b[step] then
      return differs(("metrics/%s/step_loss: training step %d: %s, now %s"):format(stretch.training, step,
        tostring(a[step]), tostring(b[step])))
    end
  end
end

local function check_stretch(file, given, scratch, it, stretch, differs, number)
  local place = ("%s/segment-%d"):format(scratch, number)
  local step = step_of(it.flow, stretch.training)
  local segment = { training = stretch.training, stop = stretch.stop, checkpoint = place .. "-end.h5" }
  fill_inputs(file, it, step)
  if stretch.from then
    segment.resume = place .. "-begin.h5"
    core.run_extract(file, group_of(stretch.training, stretch.from), segment.resume)
  end
  local code = runner.run({ it.flow }, { names = { step.name }, only = true, root = place, record = place .. ".h5",
    devices_of = it.devices_of, shards = it.shards, scratch = true, fresh = true, quiet = not given.verbose,
    verbose = given.verbose, segment = segment })
  if code ~= runner.DONE then error({ code = runner.FAILED, message = file .. ": could not be run again" }, 0) end
  local expected = place .. "-expected.h5"
  core.run_extract(file, group_of(stretch.training, stretch.stop), expected)
  compare_losses(it, runfile.open(place .. ".h5"), stretch, differs)
  for _, part in ipairs { "/model", "/optimizer" } do
    if core.h5_digest(expected, part) ~= core.h5_digest(segment.checkpoint, part) then
      differs(("%s%s: differs after training step %d"):format(group_of(stretch.training, stretch.stop):gsub(
        "^/entry/", ""), part, stretch.stop))
    end
  end
  return stretch.stop - (stretch.from or 0)
end

--- Runs chosen stretches again and compares them. Gives what was done, in words.
--- @param file string
--- @param given { segments: integer, verbose: boolean? }
--- @param scratch string
--- @param it { run: lavaflow.runfile, flow: lavaflow.workflow, devices_of: table<string, string[]>,
---   shards: table<string, integer>, same: boolean }
--- @param differs fun(text: string)
--- @return string
function segments.compare(file, given, scratch, it, differs)
  if not it.same then
    error({ code = runner.FAILED, message = file .. ": --segments: expected the device of the run, since other devices "
      .. "are compared over whole trainings" }, 0)
  end
  local all = stretches_of(it.run.entry)
  if #all == 0 then
    error({ code = runner.FAILED, message = file .. ": --segments: expected kept checkpoints, but there are none: "
      .. "a step keeps them with checkpoint = { steps = 1000, keep = 100 }" }, 0)
  end
  local chosen, steps = choose(all, given.segments), 0
  for i, stretch in ipairs(chosen) do
    steps = steps + check_stretch(file, given, scratch, it, stretch, differs, i)
  end
  return ("%d of %d segments, %d training steps"):format(#chosen, #all, steps)
end

return segments
