-- Runs workflows: finds out what must run, on which devices, and starts it; answers signals.
local uv = require "luv"
local core = require "lavaflow.core"
local execution = require "lavaflow.execution"
local facts = require "lavaflow.facts"
local files = require "lavaflow.files"
local options = require "lavaflow.options"
local plan = require "lavaflow.plan"
local progress = require "lavaflow.progress"
local scheduler = require "lavaflow.scheduler"
local state = require "lavaflow.state"
local workflow = require "lavaflow.workflow"

local runner = {}

-- Exit statuses of the command line.
runner.DONE, runner.FAILED, runner.USAGE, runner.DIFFERS, runner.RESUMABLE = 0, 1, 2, 4, 75

--- @class lavaflow.run_options
--- @field names string[] of steps; none: all
--- @field devices_of table<string, string[]>? devices by step, where there are no slots of devices
--- @field shards table<string, integer>? of a batch, by training, where the script says nothing
--- @field scratch boolean? files that the scripts name for themselves are not touched
--- @field only boolean? not the steps that these depend on
--- @field segment lavaflow.segment?
--- @field devices string[]? that steps run on
--- @field jobs integer? steps at a time
--- @field keep_going boolean?
--- @field force string[]? steps that run though they are up to date
--- @field fresh boolean? everything starts over
--- @field seconds number? between checkpoints
--- @field record string? run file, instead of runs/WORKFLOW/TIME-ID.h5
--- @field root string? instead of .lavaflow
--- @field together lavaflow.together? the processes that run each step together
--- @field dry_run boolean?
--- @field quiet boolean?
--- @field verbose boolean?

-- A mistake of the user, with the exit status; leaves runner.run.
local function fail(code, message) error({ code = code, message = message }, 0) end

local function check(code, ok, message)
  if not ok then fail(code, message) end
  return ok
end

--- Where a run file goes unless the command line says.
local function default_record(flow)
  local id = uv.random(4):gsub(".", function(byte) return ("%02x"):format(byte:byte()) end)
  return ("runs/%s/%s-%s.h5"):format(flow.name, os.date "!%Y%m%dT%H%M%SZ", id)
end

-- Every input must be a file by now, or be made by a step that runs before.
local function check_inputs(flow, order)
  local made = {}
  for _, step in ipairs(order) do
    for _, name in ipairs(options.names(step.input)) do
      local file = files.split_object(step.input[name])
      if not made[files.normal(file)] and not files.is_file(file) then
        fail(runner.FAILED, ('%sstep "%s": input %s: %s: no such file, and no step makes it'):format(step.position,
          step.name, name, file))
      end
    end
    for _, path in pairs(step.output) do made[files.normal(path)] = flow.makers[files.normal(path)] end
  end
end

-- Everything that the run reads or writes by name, with what it is.
local function all_files(flow, order)
  local list = { { flow.path, "the script" } }
  for _, step in ipairs(order) do
    for _, kind in ipairs { "input", "output" } do
      for _, name in ipairs(options.names(step[kind])) do
        list[#list + 1] = { files.split_object(step[kind][name]), ("%s %s of step %q"):format(kind, name, step.name),
          step = step, written = kind == "output" }
      end
    end
  end
  return list
end

-- A run must not replace what it reads, nor write two things to one place.
local function check_overwrites(flow, order, run_file)
  local list, by_place = all_files(flow, order), {}
  table.insert(list, 1, { run_file, "the run file", written = true })
  for _, file in ipairs(list) do
    local place = files.place(file[1])
    local others = by_place[place] or {}
    by_place[place] = others
    for _, other in ipairs(others) do
      local target, read = file, other
      if not file.written or (other.written and other[2] == "the run file") then target, read = other, file end
      local maker = flow.makers[files.normal(read[1])]
      if target.written and not (target.step and not read.written and maker == target.step) then
        fail(runner.USAGE, ("%s: %s would replace %s"):format(target[1], target[2], read[2]))
      end
    end
    others[#others + 1] = file
  end
end

-- Finds out before the training, not after it, whether results can be written.
local function prepare_outputs(order, run_file, make_run_folder, made)
  for _, step in ipairs(order) do
    for _, name in ipairs(options.names(step.output)) do
      local ok, message = files.prepare_output(step.output[name], true, made)
      if not ok then return nil, ('step "%s": output %s: %s'):format(step.name, name, message) end
    end
  end
  local ok, message = files.prepare_output(run_file, make_run_folder, made)
  return ok, not ok and "run file: " .. message or nil
end

-- The most devices that one of the steps asks for by number.
local function most_devices(plans)
  local most = 0
  for _, one in ipairs(plans) do
    for _, step in ipairs(one.order) do most = math.max(most, math.tointeger(step.resources.devices) or 0) end
  end
  return most
end

-- The devices that steps run on, a slot each; the same device may be several. One job without a choice of devices
-- takes what its script names, or "auto".
local function slots_of(plans, given)
  local specs, most = given.devices or {}, most_devices(plans)
  local jobs = given.together and 1 or given.jobs or math.max(1, #specs)
  local one = jobs == 1 and (#specs == 1 or (#specs == 0 and most <= 1))
  if given.together or given.devices_of or one then return { {} }, 1 end
  local slots, on_cpu = {}, 0
  for _, info in ipairs(core.find_devices(#specs > 0 and specs or { "all" })) do
    slots[#slots + 1] = { device = info }
  end
  -- The processor may be one slot or several.
  local wanted = #specs > 0 and jobs or math.max(jobs, most)
  while #slots < wanted and slots[#slots].device.id == "cpu" do
    slots[#slots + 1] = { device = slots[#slots].device }
  end
  for _, slot in ipairs(slots) do on_cpu = on_cpu + (slot.device.id == "cpu" and 1 or 0) end
  for _, slot in ipairs(slots) do
    if slot.device.id == "cpu" then slot.threads = math.max(1, slot.device.units // math.min(on_cpu, jobs)) end
  end
  return slots, jobs
end

-- How many slots a step takes.
local function slot_count(step, slots, given)
  local count = step.resources.devices
  if count == "all" then return #slots end
  return (given.devices_of or given.together) and math.min(count, #slots) or count
end

local function check_resources(order, slots, given)
  for _, step in ipairs(order) do
    local count = slot_count(step, slots, given)
    if count > #slots then
      fail(runner.USAGE, ('%sstep "%s": resources: devices: expected at most %d, the slots there are, got %d'):format(
        step.position, step.name, #slots, count))
    end
  end
end

-- Steps of several runs of a sweep may be one and the same; what they write may not.
local function all_places(plans)
  local places, seen = {}, {}
  for _, one in ipairs(plans) do
    for _, step in ipairs(one.order) do
      local place = one.places[step]
      local same = seen[place.folder]
      if same and next(step.output) then
        fail(runner.USAGE, ('step "%s": two runs of the sweep write the same outputs'):format(step.name))
      end
      if not same then places[#places + 1] = place end
      seen[place.folder] = same or place
      one.places[step] = seen[place.folder]
    end
  end
  table.sort(places, function(a, b) return a.folder < b.folder end)
  return places
end

-- Locks the steps of all plans, in one order for all runs, so that none waits for another that waits for it.
local function lock_places(plans, reporter)
  local places = all_places(plans)
  for _, place in ipairs(places) do
    local told
    while true do
      local ok, holder = place:acquire()
      if ok then break end
      if not told then
        reporter:log("warn", ('step "%s": another run works on it (%s): waiting'):format(place.name,
          (holder or ""):gsub("%s+$", "")))
      end
      told = true
      uv.sleep(200)
    end
  end
  return places
end

-- The runs of the same steps with the same parameters that were killed: this one takes their place.
local function killed_before(one)
  local mine, list = {}, {}
  for _, place in pairs(one.places) do mine[place.folder] = true end
  for _, dead in ipairs(state.killed(one.flow, one.root)) do
    local same = dead.info.params == facts.exact(one.flow.params)
    for _, folder in ipairs(dead.info.places) do same = same and mine[folder] end
    list[#list + 1] = dead
    dead.same = same
  end
  return list
end

-- Deals with what they have left, once this run has its run file: a live file that shows what no other file does stays.
local function clean_killed(run, list, reporter)
  for _, dead in ipairs(list) do
    local info = dead.info
    if dead.same and not run.dropped then
      files.remove(info.live)
      files.remove_temporary(info.live)
      files.remove_temporary(info.run_file)
    elseif files.is_file(info.live) then
      reporter:log("warn", ("%s is left of a run that was killed: lavaflow recover makes a run file of it"):format(
        info.live))
    end
    if files.is_file(info.live) then dead.lock:close() else dead:close() end
  end
end

-- One task for each step of each run.
local function tasks_of(runs, slots, given)
  local list, by_place = {}, {}
  for _, run in ipairs(runs) do
    local by_step = {}
    for _, step in ipairs(run.plan.order) do
      local needs = {}
      for _, other in ipairs(workflow.dependencies(run.flow, step)) do needs[#needs + 1] = by_step[other] end
      local place = run.plan.places[step]
      needs[#needs + 1] = by_place[place] -- a step that another run of the sweep has too runs once
      by_step[step] = { needs = needs, devices = slot_count(step, slots, given),
        start = function(taken, finish) run:start(step, taken, finish) end }
      by_place[place] = by_step[step]
      list[#list + 1] = by_step[step]
    end
  end
  return list
end

-- Calls `fn` with every signal that asks the runner to stop; gives a function that ends that.
local function catch_signals(fn)
  local handles = {}
  for i, name in ipairs { "sigint", "sigterm", "sigusr1" } do
    handles[i] = uv.new_signal()
    handles[i]:start(name, function() fn(name:upper()) end)
  end
  return function()
    for _, handle in ipairs(handles) do handle:close() end
  end
end

local TICK, LIVE = 100, 5 -- milliseconds; ticks

-- Runs the tasks until all are done, or a signal stops them.
local function work(runs, tasks, slots, jobs, given, reporter)
  local schedule = scheduler.create(tasks, { slots = slots, jobs = jobs, keep_going = given.keep_going })
  local stopped_by, stopped_at
  local release = catch_signals(function(name)
    if not stopped_by then
      reporter:log("warn", ("%s: stopping after a checkpoint; once more stops at once"):format(name))
      schedule:stop()
    end
    -- One request may come twice, to the process and to its group.
    local again = stopped_by and uv.hrtime() - stopped_at > 1e9
    if stopped_by and not again then return end
    for _, run in ipairs(runs) do run:signal(again and "sigkill" or "sigterm") end
    stopped_by, stopped_at = stopped_by or name, stopped_at or uv.hrtime()
  end)
  local timer, ticks = uv.new_timer(), 0
  timer:start(TICK, TICK, function()
    ticks = ticks + 1
    for _, run in ipairs(runs) do run:tick(ticks % LIVE == 1) end
  end)
  schedule:run()
  timer:close()
  release()
  uv.run "nowait" -- ends the closes, which must not be pending when the Lua state ends
end

local function exit_code(status)
  if status == "completed" then return runner.DONE end
  return status == "failed" and runner.FAILED or runner.RESUMABLE
end

-- Writes the run files and says what became of the runs.
local function finish(runs, given, reporter)
  local worst = runner.DONE
  for _, run in ipairs(runs) do
    local always = given.record ~= nil
    for _, dead in ipairs(run.killed) do -- it may have ended before its run file was written
      always = always or (dead.same and not files.is_file(dead.info.run_file))
    end
    local ok, status, written = pcall(run.finish, run, exit_code, always)
    if ok then clean_killed(run, run.killed, reporter) end
    if not ok then
      reporter:log("error", status)
      status = "failed"
    elseif written then
      reporter:say(("%s: %s"):format(status, run.run_file))
    elseif status == "completed" then
      reporter:say(("nothing to do: %d steps of %s are up to date"):format(#run.plan.order, run.flow.path))
    end
    local code = exit_code(status)
    if worst == runner.DONE or code == runner.FAILED then worst = code end
  end
  return worst
end

local function print_outlook(plans, given, reporter)
  local slots = slots_of(plans, given)
  local function device_of(step)
    return execution.devices_on(step, table.move(slots, 1, slot_count(step, slots, given), 1, {}), given)
  end
  local count, all = 0, 0
  for _, one in ipairs(plans) do
    all = all + #one.flow.steps
    for _, entry in ipairs(check(runner.FAILED, one:outlook(device_of))) do
      if entry.status ~= "up to date" then count = count + 1 end
      reporter:say(("%s  %s%s"):format(entry.step.name, entry.status,
        #entry.reasons > 0 and ": " .. table.concat(entry.reasons, "; ") or ""))
    end
  end
  reporter:say(("%d of %d steps would run"):format(count, all))
  return runner.DONE
end

-- Everything that can go wrong before anything is written.
local function make_plans(flows, given)
  local plans = {}
  for i, flow in ipairs(flows) do
    local order = check(runner.USAGE, workflow.select(flow, given.names, given.only))
    check_inputs(flow, order)
    plans[i] = check(runner.USAGE, plan.create(flow, order, given))
  end
  return plans
end

local function execute(plans, given, reporter, made)
  core.ignore_broken_pipes()
  local slots, jobs = slots_of(plans, given)
  local runs = {}
  for i, one in ipairs(plans) do
    local run_file = given.record or default_record(one.flow)
    check_resources(one.order, slots, given)
    check_overwrites(one.flow, one.order, run_file)
    check(runner.FAILED, prepare_outputs(one.order, run_file, not given.record, made))
    runs[i] = execution.create(one.flow, one, { run_file = run_file, reporter = reporter, jobs = jobs,
      devices = given.devices, seconds = given.seconds, quiet = given.quiet, shards = given.shards,
      devices_of = given.devices_of, scratch = given.scratch, verbose = given.verbose, segment = given.segment,
      together = given.together })
  end
  check(runner.FAILED, state.prepare(given.root))
  local places = lock_places(plans, reporter)
  for i, place in ipairs(given.together and places or {}) do given.together.locks[i] = place.lock:fd() end
  for i, one in ipairs(plans) do runs[i].killed = killed_before(one) end
  work(runs, tasks_of(runs, slots, given), slots, jobs, given, reporter)
  local code = finish(runs, given, reporter)
  for _, place in ipairs(places) do place:release() end
  return code, runs
end

--- Runs the named steps (all, if none is) and those they depend on, of one workflow or of each run of a sweep.
--- @param flows lavaflow.workflow[]
--- @param given lavaflow.run_options
--- @return integer exit status
--- @return lavaflow.execution[]? runs
function runner.run(flows, given)
  local reporter, made = progress.create(given), {}
  local ok, code, runs = xpcall(function()
    local plans = make_plans(flows, given)
    if given.dry_run then return print_outlook(plans, given, reporter) end
    return execute(plans, given, reporter, made)
  end, function(failure)
    return type(failure) == "table" and failure or { code = runner.FAILED, message = tostring(failure) }
  end)
  files.remove_folders(made)
  if ok then return code, runs end
  reporter:log("error", code.message)
  return code.code
end

return runner
