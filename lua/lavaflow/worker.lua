-- Runs a step: appends metrics and log to its journal, and says how it goes. A process that runs one step is told which
-- on its standard input, and says on descriptor 3 how it goes: process.lua is the other side.
local cjson = require "cjson"
local uv = require "luv"
local core = require "lavaflow.core"
local context = require "lavaflow.context"
local files = require "lavaflow.files"
local options = require "lavaflow.options"
local progress = require "lavaflow.progress"
local results = require "lavaflow.results"
local session = require "lavaflow.session"
local source = require "lavaflow.source"
local workflow = require "lavaflow.workflow"

local worker = {}

local MESSAGES = 3

--- Tells the runner. One that is gone does not hear; the process is told by a signal.
--- @param message table
function worker.send(message)
  uv.fs_write(MESSAGES, cjson.encode(message) .. "\n", -1)
end

-- JSON's numbers may come as floats.
local function whole(counts)
  for name, count in pairs(counts) do counts[name] = math.tointeger(count) end
  return counts
end

-- Metrics and log of earlier processes of this step, which a training that goes on needs.
local function read_earlier(job)
  local earlier, marks = core.run(), {}
  local _, events = earlier:replay(job.journal, 0, 0, job.step)
  for _, event in ipairs(events) do
    local note = not event.level and cjson.decode(event.text)
    if note and note.mark then
      whole(note.counts)
      marks[("%s %d"):format(note.mark, note.at)] = note
    end
  end
  return earlier, marks
end

-- What a script prints is told, and kept in the log.
local function bind_print(flow, bound, send)
  function flow.env.print(...)
    local words = table.pack(...)
    for i = 1, words.n do words[i] = tostring(words[i]) end
    local text = table.concat(words, "\t"):gsub("%z", "\\0")
    bound.record:log("out", text)
    send { line = text }
  end
end

-- nil, or what stopped the step: a signal's name.
local function stop_signal(message)
  local text = tostring(message)
  return core.interrupted() or (text:find "interrupted!?$" and "SIGINT")
    or (text:find "interrupted at step %d+ of" and "a signal to another process") or nil
end

-- A model that is saved must not replace what the step reads. The guard ends when it is closed.
local function guard_inputs(step)
  local methods = debug.getregistry()["lavaflow.model"].__index
  local save = methods.save
  function methods.save(model, path, ...)
    for _, name in ipairs(options.names(step.input)) do
      if type(path) == "string" and files.same(files.split_object(step.input[name]), path) then
        options.fail("model:save: %s would replace input %s", path, name)
      end
    end
    return options.call(save, model, path, ...)
  end
  return setmetatable({}, { __close = function() methods.save = save end })
end

local function locate(message) return message == context.segment_done and message or options.locate(message) end

local function call(step, s, bound)
  local ok, message = xpcall(options.script, locate, step.run, s)
  if message == context.segment_done then return "completed" end
  context.drain_log(bound)
  local signal = stop_signal(not ok and message or nil)
  if signal then
    -- A training says at which step, and what is there to go on from.
    return "interrupted", not ok and message:find "interrupted at" and message or "interrupted by " .. signal
  end
  if not ok then return "failed", message end
  for _, name in ipairs(options.names(step.output)) do
    if not files.is_file(step.output[name]) then
      return "failed", ("output %s: %s was not written: expected the step to write to s.output.%s"):format(name,
        bound.declared[name], name)
    end
  end
  return "completed"
end

-- The Lua files that the step required while it ran, beside those that came with it.
local function late_modules(flow, job)
  local list = {}
  for _, module in ipairs(flow.modules) do
    if not job.sources[module.path] then
      list[#list + 1] = { path = module.path, text = module.text, sha256 = core.sha256(source.of_file(module.text)) }
    end
  end
  return list
end

--- Runs a job.
--- @param job lavaflow.job
--- @param send fun(message: table)
--- @return string status
--- @return string? message
--- @return table[] modules that the step required while it ran
function worker.run(job, send)
  local flow, message = workflow.load(job.script, job.overrides, { sources = job.sources, folder = job.folder,
    silent = true })
  if not flow then error(message, 0) end
  local step = flow.by_name[job.step]
  local earlier, marks = read_earlier(job)
  local journal <close> = core.journal(job.own_journal or job.journal, job.uuid, job.elapsed)
  local bound = {
    devices = job.devices, shards = job.shards and whole(job.shards),
    record = results.create(journal), reporter = progress.remote(send, job),
    run_file = job.run_file, checkpoints = job.checkpoints, earlier = earlier, marks = marks, scratch = job.scratch,
    segment = job.segment, declared = step.output,
  }
  bind_print(flow, bound, send)
  local guard <close> = guard_inputs(step) -- luacheck: ignore 211
  step.input = options.strict(job.input, ('step "%s": input'):format(step.name))
  step.output = options.strict(job.output, ('step "%s": output'):format(step.name))
  local s = session.create(step, bound)
  local status, why = call(step, s, bound)
  return status, why, late_modules(flow, job)
end

worker.exit_codes = { completed = 0, failed = 1, interrupted = 75 }

--- What `run`, a worker.run, gives, whether or not it raises.
--- @param run function
--- @return string status
--- @return string? message
--- @return table[]? modules
function worker.attempt(run, ...)
  local ok, status, message, modules = xpcall(run, options.locate, ...)
  if ok then return status, message, modules end
  local signal = stop_signal(status) -- before the step's own code
  return signal and "interrupted" or "failed", signal and "interrupted by " .. signal or status
end

--- Runs the job that standard input holds.
--- @return integer exit status
function worker.main()
  local job = cjson.decode(io.read "a")
  core.catch_signals(job.parent)
  core.ignore_broken_pipes()
  local status, message, modules = worker.attempt(worker.run, job, worker.send)
  worker.send { status = status, message = message, modules = modules }
  return worker.exit_codes[status]
end

return worker
