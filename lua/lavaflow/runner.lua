-- Runs the steps of a workflow, one after the other, and writes the run file.
local uv = require "luv"
local core = require "lavaflow.core"
local context = require "lavaflow.context"
local distillation = require "lavaflow.distillation"
local files = require "lavaflow.files"
local options = require "lavaflow.options"
local progress = require "lavaflow.progress"
local record = require "lavaflow.record"
local session = require "lavaflow.session"
local training = require "lavaflow.training"
local workflow = require "lavaflow.workflow"

local runner = {}

-- Exit statuses of the command line.
runner.DONE, runner.FAILED, runner.USAGE, runner.RESUMABLE = 0, 1, 2, 75

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
        return nil, ('step "%s": input %s: %s: no such file, and no step makes it'):format(step.name, name, file)
      end
    end
    for _, path in pairs(step.output) do made[files.normal(path)] = flow.makers[files.normal(path)] end
  end
  return true
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
  local list = all_files(flow, order)
  local targets = { { run_file, "the run file" } }
  for _, file in ipairs(list) do
    if file.written then targets[#targets + 1] = file end
  end
  for _, target in ipairs(targets) do
    for _, file in ipairs(list) do
      local made = target.written and not file.written and flow.makers[files.normal(file[1])] == target.step
      if target ~= file and not made and files.same(target[1], file[1]) then
        return nil, ("%s: %s would replace %s"):format(target[1], target[2], file[2])
      end
    end
  end
  return true
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
  if not ok then return nil, "run file: " .. message end
  return true
end

local function print_plan(flow, order, reporter)
  for i, step in ipairs(order) do
    reporter:say(("%d  %s"):format(i, step.name))
    for _, kind in ipairs { "input", "output" } do
      for _, name in ipairs(options.names(step[kind])) do
        reporter:say(("   %-6s %s = %s"):format(kind, name, step[kind][name]))
      end
    end
  end
  reporter:say(("%d of %d steps would run"):format(#order, #flow.steps))
end

-- nil, "SIGINT" or "SIGTERM": what stopped the step. Outside a training the interpreter turns SIGINT into an error.
local function stop_signal(message)
  return core.interrupted() or (message and message:find "interrupted!$" and "SIGINT") or nil
end

local function call_step(step, bound)
  local ok, message = xpcall(options.script, options.locate, step.run, session.create(step, bound))
  context.drain_log(bound)
  local signal = stop_signal(not ok and message or nil)
  if signal then return "interrupted", ok and "interrupted by " .. signal or message end
  if not ok then return "failed", message end
  for _, name in ipairs(options.names(step.output)) do
    if not files.is_file(step.output[name]) then
      return "failed", ("output %s: %s was not written"):format(name, step.output[name])
    end
  end
  return "completed"
end

-- The lines of a step's `run`, from the script or the module that it stands in.
local function source_of(flow, step)
  local info = debug.getinfo(step.run, "S")
  local path, text = info.source:sub(2), flow.text
  for _, module in ipairs(flow.modules) do
    if module.path == path then text = module.text end
  end
  local lines, number = {}, 0
  for line in (text .. "\n"):gmatch "(.-)\n" do
    number = number + 1
    if number >= info.linedefined and number <= info.lastlinedefined then lines[#lines + 1] = line end
  end
  return table.concat(lines, "\n")
end

-- A step that does not succeed leaves no output that was not there before.
local function run_step(flow, step, bound)
  local rec = bound.record
  local new = {}
  for _, path in pairs(step.output) do
    if not files.is_file(path) then new[#new + 1] = path end
  end
  rec:begin_step(step.name)
  for _, name in ipairs(options.names(step.input)) do rec:input(step.input[name]) end
  rec:identify(step, source_of(flow, step))
  local status, message = call_step(step, bound)
  if status ~= "completed" then
    for _, path in ipairs(new) do files.remove(path) end
    message = ('step "%s": %s'):format(step.name, message)
    rec:log("error", message)
    bound.reporter:log("error", message)
  end
  rec:end_step(status, status == "completed" and step.output or {})
  return status
end

local function exit_code(status)
  if status == "completed" then return runner.DONE end
  local _, checkpointed = core.interrupted()
  return status == "interrupted" and checkpointed and runner.RESUMABLE or runner.FAILED
end

local function run_steps(flow, order, bound, run_file)
  local rec = bound.record
  rec:script(flow.path, flow.text)
  local overrides = {}
  for _, name in ipairs(options.names(flow.overrides)) do
    overrides[#overrides + 1] = name .. "=" .. flow.overrides[name]
  end
  rec:parameters(flow.params, table.concat(overrides, " "))
  local status
  for _, step in ipairs(order) do
    status = run_step(flow, step, bound)
    if status ~= "completed" then break end
  end
  for _, module in ipairs(flow.modules) do rec:module(module.path, module.text) end
  local code = exit_code(status)
  rec:save(run_file, status, code)
  bound.reporter:say(("%s: %s"):format(status, run_file))
  return code
end

--- Runs the named steps (all, if none is) and those they depend on.
--- @param flow lavaflow.workflow
--- @param given { names: string[], device: string?, record: string?, dry_run: boolean?, quiet: boolean?,
---   verbose: boolean? }
--- @return integer exit status
function runner.run(flow, given)
  local reporter = progress.create(given)
  local function fail(code, message)
    reporter:log("error", message)
    return code
  end
  local order, wrong = workflow.select(flow, given.names)
  if not order then return fail(runner.USAGE, wrong) end
  local ok, message = check_inputs(flow, order)
  if not ok then return fail(runner.FAILED, message) end
  if given.dry_run then
    print_plan(flow, order, reporter)
    return runner.DONE
  end
  local made, run_file = {}, given.record or default_record(flow)
  ok, message = check_overwrites(flow, order, run_file)
  if not ok then return fail(runner.USAGE, message) end
  ok, message = prepare_outputs(order, run_file, not given.record, made)
  if ok then
    local bound = { device = given.device, record = record.create(), reporter = reporter, run_file = run_file }
    ok, message = pcall(run_steps, flow, order, bound, run_file)
  end
  files.remove_folders(made)
  if not ok then return fail(runner.FAILED, message) end
  return message
end

-- Raised to leave a step that is only explained.
local stop = setmetatable({}, { __tostring = function() return "explained" end })

-- A session that explains the step's first training and leaves there, since what follows needs its results.
local function explaining(step, device, say)
  local s = session.create(step, {})
  local function leave() error(stop, 0) end
  local function explained_by(where, explain)
    return function(_, given)
      say(explain(where, given, { device = device }))
      leave()
    end
  end
  s.train = explained_by("s:train", training.explain)
  s.distill = explained_by("s:distill", distillation.explain)
  s.evaluate, s.predict, s.metric = leave, leave, leave
  s.output = setmetatable({}, { __index = leave })
  return s
end

--- Prints the step programs of each step's first training. Trains nothing.
--- @return integer exit status
function runner.explain(flow, given)
  local reporter = progress.create {}
  local order, wrong = workflow.select(flow, given.names)
  if not order then
    reporter:log("error", wrong)
    return runner.USAGE
  end
  for _, step in ipairs(order) do
    local explained
    local s = explaining(step, given.device, function(text)
      explained = true
      io.stdout:write(("step %s\n\n%s\n"):format(step.name, text))
    end)
    local ok, message = xpcall(options.script, function(e) return e == stop and e or options.locate(e) end, step.run, s)
    if not ok and message ~= stop then
      reporter:log("error", ('step "%s": %s'):format(step.name, message))
      return runner.FAILED
    end
    if not explained then io.stdout:write(("step %s: trains nothing\n"):format(step.name)) end
  end
  return runner.DONE
end

return runner
