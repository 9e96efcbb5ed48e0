-- One run of one workflow: starts the processes of its steps, takes what they say into the run file, and moves what
-- they made to its place.
local cjson = require "cjson"
local uv = require "luv"
local core = require "lavaflow.core"
local facts = require "lavaflow.facts"
local files = require "lavaflow.files"
local options = require "lavaflow.options"
local process = require "lavaflow.process"
local ranks = require "lavaflow.ranks"
local record = require "lavaflow.record"
local rules = require "lavaflow.rules"
local runfile = require "lavaflow.runfile"
local state = require "lavaflow.state"

local execution = {}

--- @class lavaflow.execution
--- @field flow lavaflow.workflow
--- @field plan lavaflow.plan
--- @field run_file string
--- @field ran integer steps that were started
--- @field statuses table<lavaflow.step, string>
local Execution = {}
Execution.__index = Execution

--- @param flow lavaflow.workflow
--- @param plan lavaflow.plan
--- @param given { run_file: string, reporter: lavaflow.reporter, devices: string[]?, seconds: number?, jobs: integer,
---   devices_of: table<string, string[]>?, shards: table<string, integer>?, scratch: boolean?, quiet: boolean?,
---   verbose: boolean?, segment: lavaflow.segment?, together: lavaflow.together? }
--- @return lavaflow.execution
function execution.create(flow, plan, given)
  return setmetatable({ flow = flow, plan = plan, given = given, reporter = given.reporter, run_file = given.run_file,
    live = runfile.live_name(given.run_file), ran = 0, statuses = {}, pending = {}, working = {} },
    Execution)
end

-- The run's record, once something runs.
local function need_record(self)
  if self.record then return self.record end
  local rec = record.create()
  self.record = rec
  self.registration = state.register(self.plan, { uuid = rec.run:uuid(), run_file = self.run_file, live = self.live })
  rec:script(self.flow.path, self.flow.text)
  local overrides = {}
  for _, name in ipairs(options.names(self.flow.overrides)) do
    overrides[#overrides + 1] = name .. "=" .. self.flow.overrides[name]
  end
  rec:parameters(self.flow.params, table.concat(overrides, " "))
  for _, add in ipairs(self.pending) do add() end
  return rec
end

local function when(self, fn)
  if self.record then fn() else self.pending[#self.pending + 1] = fn end
end

-- What a journal told on the way: notes of the step's process.
local function take_notes(self, recorded, events)
  for _, event in ipairs(events) do
    local ok, note = false, nil
    if not event.level then ok, note = pcall(cjson.decode, event.text) end
    if ok and note.devices then self.record:devices_used(note.devices, note.asked, recorded) end
  end
end

local function add_facts(rec, recorded, found)
  local code, key = facts.keys(found)
  for _, name in ipairs(options.names(found.inputs)) do
    rec:input(found.inputs[name].path, found.inputs[name].sha256)
  end
  recorded:set("code", code)
  recorded:set("key", key)
end

-- Puts a checkpoint that a training has kept into the run file.
local function add_checkpoint(self, place, name)
  local training, at = name:gsub("^kept%-", ""):match "^(.+)%.checkpoint%-(%d+)%.h5$"
  self.record.run:model(training, "checkpoint_" .. at, place:path(name))
end

-- All of those of a run that has completed, under names that no later one takes for its own. Gives these.
local function keep_checkpoints(self, place)
  local kept = {}
  for _, name in ipairs(files.list(place.folder)) do
    if name:find "%.checkpoint%-%d+%.h5$" and not name:find "^kept%-" then
      add_checkpoint(self, place, name)
      local ok, why = uv.fs_rename(place:path(name), place:path("kept-" .. name))
      if not ok then error(why, 0) end
      kept[#kept + 1] = "kept-" .. name
    end
  end
  return kept
end

-- A step that does not run again: the run file gets what its last run told.
local function add_done(self, step, decision)
  local rec, done, place = self.record, decision.done, self.plan.places[step]
  local shift = rec.run:time() - done.seconds
  local recorded = rec:step(step.name, shift)
  add_facts(rec, recorded, decision.facts)
  recorded:set("from_run", done.run)
  local ok, _, events = pcall(rec.run.replay, rec.run, place:path(done.journal), 0, shift, step.name)
  if not ok then
    place:drop_all()
    error(('step "%s": what is remembered of its last run is damaged, and now forgotten: run again'):format(
      step.name), 0)
  end
  take_notes(self, recorded, events)
  for _, name in ipairs(done.checkpoints or {}) do add_checkpoint(self, place, name) end
  for _, module in ipairs(done.late_modules or {}) do rec:module(module.path, module.text) end
  recorded:finish("up to date", step.output)
end

-- "results/m.h5" while it is being written: in the same folder, so that it can be moved to its place at once.
local function partial(path)
  local folder, name = path:match "^(.*/)([^/]*)$"
  local stem, extension = (name or path):match "^(.+)(%.[^.]*)$"
  return ("%s.%s.partial%s"):format(folder or "", stem or name or path, extension or "")
end

-- Where an output ends up: behind a link, so that the link stays.
local function target(path)
  local stat = uv.fs_lstat(path)
  return stat and stat.type == "link" and uv.fs_realpath(path) or path
end

local function staged(step)
  local paths = {}
  for name, path in pairs(step.output) do paths[name] = partial(target(path)) end
  return paths
end

local function drop_staged(work)
  for _, path in pairs(work.output) do files.remove(path) end
end

-- Moves the outputs to their places and remembers the run. A message on failure.
local function complete(self, work)
  if self.given.segment then return nil end -- nothing was made
  local step, written = work.step, {}
  for _, name in ipairs(options.names(step.output)) do
    local path = step.output[name]
    local ok, why = uv.fs_rename(work.output[name], target(path))
    if not ok then return ("output %s: %s"):format(name, files.reason(path, why)) end
    local sha256, message = self.plan.digests:of(path)
    if not sha256 then return ("output %s: %s"):format(name, message) end
    written[name] = { path = path, sha256 = sha256 }
  end
  local found = work.decision.facts
  local place = self.plan.places[step]
  place:complete { facts = found, outputs = written, checkpoints = keep_checkpoints(self, place),
    late_modules = work.said.modules,
    run = self.record.run:uuid(), run_file = self.run_file, seconds = self.record.run:time() - work.shift,
    at = os.date "!%Y-%m-%dT%H:%M:%SZ" }
end

-- Takes what the step's journal has that is new.
local function read_journal(self, work)
  local events
  work.offset, events = self.record.run:replay(work.journal, work.offset, work.shift, work.step.name)
  take_notes(self, work.recorded, events)
end

local stopping = { SIGINT = true, SIGTERM = true, SIGUSR1 = true }

local function judge(work, code, signal)
  if work.failure then return "failed", work.failure end
  if work.said then return work.said.status, work.said.message end
  local name = signal ~= 0 and process.signal_name(signal)
  -- It may come before the process can catch it.
  if stopping[name] then return "interrupted", "interrupted by " .. name end
  if name then return "failed", "its process was ended by " .. name end
  return "failed", ("its process ended with status %d and said nothing"):format(code)
end

-- What a process says must not end the runner: a failure while it is taken in ends the step.
local function guard(self, work, fn)
  return function(...)
    local ok, message = xpcall(fn, debug.traceback, self, work, ...)
    if not ok and not work.failure then
      work.failure = message
      work.process:kill "sigterm"
    end
  end
end

local function ended(self, work, code, signal)
  local step, rec = work.step, self.record
  self.working[work] = nil
  guard(self, work, read_journal)()
  local status, message = judge(work, code, signal)
  for _, module in ipairs(work.said and work.said.modules or {}) do
    work.decision.facts.modules[module.path] = module.sha256
    rec:module(module.path, module.text)
  end
  if status == "completed" then
    local ok, failure = pcall(complete, self, work)
    message = failure
    if not ok or failure then status = "failed" end
  end
  if status ~= "completed" then
    drop_staged(work)
    local place = self.plan.places[step]
    place:write_attempt { facts = work.decision.facts, forced = work.decision.forced,
      modules_known = work.said ~= nil }
    if status == "failed" then place:fail() end
    if status == "failed" and work.decision.attempt then
      message = message .. "; it went on with what an interrupted run left (--fresh starts over)"
    end
    message = ('step "%s": %s'):format(step.name, message)
    rec:log(status == "interrupted" and "warn" or "error", message, step.name)
    self.reporter:log("error", message)
  end
  work.recorded:finish(status, status == "completed" and not self.given.segment and step.output or {})
  self.statuses[step] = status
  work.finish(status)
end

local function said(self, work, message)
  if message.status then
    work.said = message
  elseif message.line then
    self.reporter:say(self.given.jobs > 1 and ("%s  %s"):format(work.step.name, message.line) or message.line)
  else
    self.reporter:obey(message)
  end
end

-- What the process, and libraries in it, wrote to its output past the reporter.
local function wrote(self, work, level, text)
  self.record:log(level, text, work.step.name)
  if level == "err" then
    self.reporter:error_line(("%s: %s"):format(work.step.name, text))
  else
    self.reporter:say(text)
  end
end

-- What a step uses that is bound to no slot's device; nil: what its script says, or "auto".
local function unbound_devices(step, given)
  if given.devices_of then return given.devices_of[step.name] end
  local count = step.resources.devices
  local several = count == rules.ALL or count > 1
  if not given.devices then return several and { rules.ALL } or nil end
  if not several then return { given.devices[1] == rules.ALL and rules.AUTO or given.devices[1] } end
  return table.move(given.devices, 1, count == rules.ALL and #given.devices or math.min(count, #given.devices), 1, {})
end

-- What the devices of the slots mean for the process: which it sees, how many threads it may use, and the list that its
-- trainings use.
local function bind(self, step, slots)
  local environment, devices, threads, units = {}, {}, 0, 0
  for _, slot in ipairs(slots) do
    if slot.device then
      local uuid = slot.device.uuid
      devices[#devices + 1] = uuid and slot.device.backend .. ":" .. uuid or slot.device.id
      units = math.max(units, slot.device.units)
    end
    threads = threads + (slot.threads or 0)
  end
  if #devices == 0 then return environment, unbound_devices(step, self.given) end
  if threads > 0 then environment.LAVAFLOW_THREADS = tostring(math.min(threads, units)) end
  environment.LAVAFLOW_DEVICES = table.concat(devices, ",")
  return environment, devices
end

local function sources_of(flow)
  local sources = {}
  for path, text in pairs(flow.texts) do sources[path] = text end
  return sources
end

local function describe_job(self, work, devices)
  local flow, step, given, place = self.flow, work.step, self.given, self.plan.places[work.step]
  return {
    script = flow.path, sources = sources_of(flow), overrides = flow.overrides, folder = flow.folder, step = step.name,
    devices = devices, shards = given.shards, input = step.input, output = work.output, journal = work.journal,
    uuid = self.record.run:uuid(), elapsed = self.record.run:time() - work.shift, run_file = self.run_file,
    columns = self.reporter.columns, quiet = given.quiet, verbose = given.verbose, scratch = given.scratch,
    parent = uv.os_getpid(), segment = given.segment,
    checkpoints = { folder = place.folder, seconds = given.seconds or step.checkpoint.seconds or 60.0,
      steps = step.checkpoint.steps, keep = step.checkpoint.keep },
  }
end

-- A new attempt, or one that goes on with what an interrupted run left.
local function prepare(self, work)
  local place, run = self.plan.places[work.step], self.record.run
  work.journal, work.offset, work.shift = place:path "attempt.journal", 0, run:time()
  local sound, _, _, last = false, nil, nil, nil
  if work.decision.attempt then
    sound, _, _, last = pcall(core.run().replay, core.run(), work.journal, 0, 0, work.step.name)
    if not sound then
      self.reporter:log("warn", ('step "%s": what an interrupted run left is damaged: it starts over'):format(
        work.step.name))
    end
  end
  if sound then
    work.shift = work.shift - last
  else
    self.dropped = self.dropped or place:attempt() ~= nil
    work.decision.attempt = nil
    place:drop_attempt()
  end
  core.journal(work.journal, run:uuid(), 0):close() -- so that it is there to be read
  place:write_attempt { facts = work.decision.facts, forced = work.decision.forced }
  for _, path in pairs(work.output) do
    files.remove(path)
    local ok, message = files.make_folder(files.folder(path))
    if not ok then error(message, 0) end
  end
  work.recorded = self.record:step(work.step.name, work.shift)
  add_facts(self.record, work.recorded, work.decision.facts)
  self.record:log("info", ("step %s %s: %s"):format(work.step.name, work.decision.attempt and "goes on" or "starts",
    table.concat(work.decision.reasons, "; ")), work.step.name)
  if work.decision.attempt then read_journal(self, work) end
end

-- Of a step that could not be run, or whose end could not be dealt with.
local function fail(self, step, message, finish)
  message = ('step "%s": %s'):format(step.name, message)
  local ok, other = pcall(function()
    local rec = need_record(self)
    rec:log("error", message, step.name)
    rec:step(step.name, rec.run:time()):finish("failed", {})
  end)
  if not ok then self.reporter:log("error", other) end
  self.reporter:log("error", message)
  self.statuses[step] = "failed"
  finish "failed"
end

local function launch(self, work, slots)
  prepare(self, work)
  local environment, devices = bind(self, work.step, slots)
  local given = {
    environment = environment, inherited = { self.plan.places[work.step].lock:fd() },
    on_message = guard(self, work, said), on_line = guard(self, work, wrote),
    on_exit = function(code, signal)
      local ok, message = xpcall(ended, debug.traceback, self, work, code, signal)
      if not ok then fail(self, work.step, message, work.finish) end
    end,
  }
  local job, together = describe_job(self, work, devices), self.given.together
  local handle, message
  if together then handle, message = together:start(job, given) else handle, message = process.start(job, given) end
  if not handle then error(message, 0) end
  work.process = handle
  self.working[work] = true
end

-- What of the device counts for a step that depends on it.
local function device_text(info)
  return ("%s %s %s"):format(info.uuid or info.id, info.driver_version or "", info.kernels or "")
end

--- What a step depends on that depends on its devices: those that it would get on these slots, each once.
--- @param step lavaflow.step
--- @param slots lavaflow.slot[] none: it is bound to none
--- @param given { devices: string[]?, devices_of: table<string, string[]>? }
--- @return string? # nil: it does not depend on them
function execution.devices_on(step, slots, given)
  if not step.on_device then return nil end
  local infos, texts, seen = {}, {}, {}
  for _, slot in ipairs(slots) do infos[#infos + 1] = slot.device end
  if #infos == 0 then infos = core.find_devices(ranks.devices(unbound_devices(step, given) or { rules.AUTO })) end
  for _, info in ipairs(infos) do
    local text = device_text(info)
    if not seen[text] then texts[#texts + 1] = text end
    seen[text] = true
  end
  return table.concat(texts, "; ")
end

local function begin(self, step, slots, finish)
  local decision, message = self.plan:decide(step, execution.devices_on(step, slots, self.given))
  if not decision then return fail(self, step, message, finish) end
  if #decision.reasons == 0 then
    self.plan.places[step]:drop_attempt()
    self.statuses[step] = "up to date"
    when(self, function() add_done(self, step, decision) end)
    if self.given.verbose then self.reporter:say(("%s  is up to date"):format(step.name)) end
    return finish "up to date"
  end
  need_record(self)
  self.ran = self.ran + 1
  self.reporter:verbose_line(("%s  %s: %s"):format(step.name, decision.attempt and "goes on" or "runs",
    table.concat(decision.reasons, "; ")))
  local work = { step = step, decision = decision, output = staged(step), finish = finish }
  launch(self, work, slots)
end

--- Runs a step, or finds that it is up to date. Calls `finish` with how it ended, at once or later.
--- @param step lavaflow.step
--- @param slots lavaflow.slot[]
--- @param finish fun(status: string)
function Execution:start(step, slots, finish)
  local finished = false
  local function once(status)
    finished = true
    finish(status)
  end
  local ok, failure = pcall(begin, self, step, slots, once)
  if not ok and finished then error(failure, 0) end -- of a step that came after it
  if not ok then fail(self, step, failure, finish) end
end

--- Takes what came from the processes and, where `live`, brings the live file up to date.
--- @param live boolean
function Execution:tick(live)
  for work in pairs(self.working) do guard(self, work, read_journal)() end
  if not live or self.no_live or not self.record or not next(self.working) then return end
  local ok, message = pcall(self.record.run.live, self.record.run, self.live,
    { lock = uv.fs_realpath(self.registration.path) })
  if ok then return end
  self.no_live = true -- the run itself goes on
  self.reporter:log("warn", message .. ": nothing shows this run until it ends")
  files.remove(self.live)
end

--- Sends a signal to every process that runs.
function Execution:signal(name)
  for work in pairs(self.working) do work.process:kill(name) end
end

--- Its run file; where nothing ran, that of the run before, if it is known.
--- @return string?
function Execution:latest_file()
  if self.record then return self.run_file end
  local done = self.plan.places[self.plan.order[#self.plan.order]]:done()
  return done and files.is_file(done.run_file) and done.run_file or nil
end

--- Whether all of its steps are done.
function Execution:status()
  local status = "completed"
  for _, step in ipairs(self.plan.order) do
    local one = self.statuses[step] or "not run"
    if one == "failed" then return "failed" end
    if one ~= "completed" and one ~= "up to date" then status = "interrupted" end
  end
  return status
end

--- Writes the run file, if anything ran or `always`. Gives what became of the run, and whether the file was written.
--- @return string status
--- @return boolean written
function Execution:finish(exit_code, always)
  local status = self:status()
  self.plan.digests:save()
  if self.ran == 0 and not self.record and not always then return status, false end
  local rec = need_record(self)
  for _, module in ipairs(self.flow.modules) do rec:module(module.path, module.text) end
  files.make_folder(files.folder(self.run_file)) -- it may have been removed meanwhile
  rec:save(self.run_file, status, exit_code(status))
  rec.run:live_close()
  files.remove(self.live)
  self.registration:close()
  return status, true
end

return execution
