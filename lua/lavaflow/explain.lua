-- `lavaflow status` and `lavaflow explain`: what would run and why, and the step programs of trainings. Runs nothing.
local distillation = require "lavaflow.distillation"
local execution = require "lavaflow.execution"
local files = require "lavaflow.files"
local options = require "lavaflow.options"
local plan = require "lavaflow.plan"
local runner = require "lavaflow.runner"
local session = require "lavaflow.session"
local training = require "lavaflow.training"
local workflow = require "lavaflow.workflow"

local explain = {}

local function complain(code, message)
  io.stderr:write("lavaflow: ", message, "\n")
  return code
end

-- The outlook on the named steps and those before them; nil and the exit status.
local function outlook(flow, names)
  local order, wrong = workflow.select(flow, names)
  if not order then return nil, complain(runner.USAGE, wrong) end
  local list, message = plan.create(flow, order, {}):outlook(function(step)
    return execution.devices_on(step, {}, {})
  end)
  if not list then return nil, complain(runner.FAILED, message) end
  return list
end

local function since(done) return done and ("%s in %.1f s, %s"):format(done.at, done.seconds, done.run_file) or "" end

--- A line for each step: its state, its last run, and what changed first.
--- @return integer exit status
function explain.status(flow, names)
  local list, code = outlook(flow, names)
  if not list then return code end
  local width = 0
  for _, entry in ipairs(list) do width = math.max(width, #entry.step.name) end
  for _, entry in ipairs(list) do
    local more = #entry.reasons > 1 and (" (and %d more)"):format(#entry.reasons - 1) or ""
    local about = entry.status == "up to date" and since(entry.done) or (entry.reasons[1] or "") .. more
    io.stdout:write(("%-" .. width .. "s  %-10s  %s\n"):format(entry.step.name, entry.status, about))
  end
  return runner.DONE
end

--- Why each step would run, a line for each difference with old and new values.
--- @return integer exit status
function explain.reasons(flow, names)
  local list, code = outlook(flow, names)
  if not list then return code end
  local wanted = {}
  for _, name in ipairs(names) do wanted[name] = true end
  for _, entry in ipairs(list) do
    if #names == 0 or wanted[entry.step.name] then
      io.stdout:write(("%s: %s\n"):format(entry.step.name, entry.status))
      for _, reason in ipairs(entry.reasons) do io.stdout:write("  ", reason, "\n") end
      if entry.done then io.stdout:write("  last run: ", since(entry.done), "\n") end
    end
  end
  return runner.DONE
end

-- Raised to leave a step that is only explained.
local stop = setmetatable({}, { __tostring = function() return "explained" end })

-- A session that explains the step's first training and leaves there, since what follows needs its results.
local function explaining(step, devices, say)
  local s = session.create(step, {})
  local function leave() error(stop, 0) end
  local function explained_by(where, program)
    return function(_, given)
      say(program(where, given, { devices = devices }))
      leave()
    end
  end
  s.train = explained_by("s:train", training.explain)
  s.distill = explained_by("s:distill", distillation.explain)
  s.evaluate, s.predict, s.metric = leave, leave, leave
  s.output = setmetatable({}, { __index = leave })
  return s
end

--- Prints the step programs of each step's first training.
--- @return integer exit status
function explain.program(flow, names, devices)
  local order, wrong = workflow.select(flow, names)
  if not order then return complain(runner.USAGE, wrong) end
  for _, step in ipairs(order) do
    local explained, missing
    for _, name in ipairs(options.names(step.input)) do
      local file = files.split_object(step.input[name])
      if not files.is_file(file) then missing = file end
    end
    if missing then
      io.stdout:write(("step %s: can be explained once there is %s\n"):format(step.name, missing))
      goto continue
    end
    local s = explaining(step, devices, function(text)
      explained = true
      io.stdout:write(("step %s\n\n%s\n"):format(step.name, text))
    end)
    local ok, message = xpcall(options.script, function(e) return e == stop and e or options.locate(e) end, step.run, s)
    if not ok and message ~= stop then return complain(runner.FAILED, ('step "%s": %s'):format(step.name, message)) end
    if not explained then io.stdout:write(("step %s: trains nothing\n"):format(step.name)) end
    ::continue::
  end
  return runner.DONE
end

return explain
