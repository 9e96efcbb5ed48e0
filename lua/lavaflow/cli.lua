-- The command line: every command with its options, and what it calls.
local argparse = require "argparse"
local core = require "lavaflow.core"
local explain = require "lavaflow.explain"
local files = require "lavaflow.files"
local reading = require "lavaflow.reading"
local rules = require "lavaflow.rules"
local runner = require "lavaflow.runner"
local sweep = require "lavaflow.sweep"
local workflow = require "lavaflow.workflow"

local cli = {}

local function complain(message)
  io.stderr:write("lavaflow: ", message, "\n")
end

-- STEP… and key=value… of a command line, and the keys in their order.
local function split_arguments(arguments)
  local names, overrides, order = {}, {}, {}
  for _, argument in ipairs(arguments) do
    local key, value = argument:match "^([^=]*)=(.*)$"
    if key and not overrides[key] then order[#order + 1] = key end
    if key then overrides[key] = value else names[#names + 1] = argument end
  end
  return names, overrides, order
end

local function load_workflow(args)
  local names, overrides = split_arguments(args.arguments)
  local flow, message = workflow.load(args.workflow, overrides)
  if not flow then complain(message) end
  return flow, names
end

-- One workflow for each combination of the values that the command line lists.
local function load_sweep(args)
  local names, overrides, order = split_arguments(args.arguments)
  local flows, stem = {}, files.stem(args.workflow)
  for _, one in ipairs(sweep.combinations(overrides, order)) do
    local flow, message = workflow.load(args.workflow, one.overrides, { folder = sweep.folder(stem, one.label) })
    if not flow then
      complain(message)
      return nil
    end
    flows[#flows + 1] = flow
  end
  return flows, names
end

-- "a,b" as a list, after a look whether these devices are there, without one nil; false when one is not. "all" becomes
-- every device that it stands for.
local function devices_of(text)
  local list = {}
  for spec in (text or ""):gmatch "[^,]+" do
    local ok, found = pcall(core.find_devices, { spec })
    if not ok then
      complain("--device: " .. found)
      return false
    end
    local open = spec == rules.ALL and not core.ranks_started() -- else each process has its own
    for i = 1, open and #found or 1 do list[#list + 1] = open and found[i].id or spec end
  end
  return #list > 0 and list or nil
end

local commands = {}

function commands.run(args)
  local devices = devices_of(args.device)
  if devices == false then return runner.USAGE end
  if args.sweep and args.record then
    complain "--record: expected none with --sweep, whose runs have a file each"
    return runner.USAGE
  end
  if args.together and (args.jobs or 1) > 1 then
    complain(("--jobs: expected 1 with several processes, which run each step together, got %d"):format(args.jobs))
    return runner.USAGE
  end
  local flows, names = (args.sweep and load_sweep or load_workflow)(args)
  if not flows then return runner.USAGE end
  local given = { names = names, devices = devices, record = args.record, jobs = args.jobs,
    dry_run = args.dry_run, quiet = args.quiet, verbose = args.verbose, keep_going = args.keep_going,
    force = args.force, fresh = args.fresh, seconds = args.checkpoint, together = args.together }
  if not args.sweep then return (runner.run({ flows }, given)) end
  local code, runs = runner.run(flows, given)
  local table_of = {}
  for i, run in ipairs(runs or {}) do table_of[i] = run:latest_file() end
  if #table_of > 0 and not args.quiet then require("lavaflow.runs").list({ place = table_of }, complain) end
  return code
end

function commands.status(args)
  local flow, names = load_workflow(args)
  return flow and explain.status(flow, names) or runner.USAGE
end

function commands.explain(args)
  local flow, names = load_workflow(args)
  if not flow then return runner.USAGE end
  if args.program then
    local devices = devices_of(args.device)
    return devices ~= false and explain.program(flow, names, devices) or runner.USAGE
  end
  return explain.reasons(flow, names)
end

-- NAME=FILE of --input as a table; nil when one is no pair.
local function inputs_of(list)
  local input = {}
  for _, text in ipairs(list) do
    local name, file = text:match "^([^=]+)=(.+)$"
    if not name then
      complain(("--input %s: expected NAME=FILE"):format(text))
      return nil
    end
    input[name] = file
  end
  return input
end

function commands.verify(args)
  local input = inputs_of(args.input)
  if not input then return runner.USAGE end
  local devices = devices_of(args.device)
  if devices == false then return runner.USAGE end
  return require("lavaflow.verify").run(args.run, { input = input, devices = devices, segments = args.segments,
    verbose = args.verbose })
end

function commands.devices(args)
  if args.bandwidth then
    require("lavaflow.bandwidth").print(args.json)
  else
    require("lavaflow.show").devices(core.devices(), args.json)
  end
  return runner.DONE
end

function commands.import(args)
  local ok, message = pcall(core.import_mnist, args.source, args.output)
  if not ok then
    complain(message)
    return runner.FAILED
  end
  io.stdout:write(args.output, "\n")
  return runner.DONE
end

local function workflow_arguments(command)
  command:argument("workflow", "The script."):argname "WORKFLOW.lua"
  command:argument("arguments", "Steps (all, if none is named) with those they depend on, and parameters to set.")
    :argname "STEP|key=value":args "*"
end

local function device_option(command)
  command:option("--device", "Devices of the steps, a slot each: auto, cpu, vulkan:0, vulkan:NAME-PART, a UUID; all.")
    :argname "D[,D…]"
end

-- A whole number, or a number, above 0.
local function above_zero(kind)
  return function(text)
    local value = tonumber(text)
    if kind == "whole" then value = value and math.tointeger(value) end
    if not value or value <= 0 or value - value ~= 0 then
      return nil, ("expected a %s above 0, got '%s'"):format(kind == "whole" and "whole number" or "number", text)
    end
    return value
  end
end

local function parser()
  local p = argparse("lavaflow", "Runs workflows that train MLPs from HDF5 on a GPU through Vulkan, or on the CPU.",
    "Exit status: 0 done; 1 a step failed; 2 wrong usage or wrong script; 4 verify found a difference; "
      .. "75 stopped by a signal after a checkpoint.")
  p:command_target "command"
  p:flag("--version", "Print the version."):action(function()
    io.stdout:write("lavaflow ", core.version, "\n")
    os.exit(runner.DONE, true)
  end)

  local run = p:command("run", "Run the steps of a workflow.")
  workflow_arguments(run)
  device_option(run)
  run:option("--record", "Run file, instead of runs/WORKFLOW/TIME-ID.h5."):argname "FILE"
  run:flag("-n --dry-run", "Print what would run, and why.")
  run:option("-j --jobs", "Steps that run at a time, each on a device slot of its own."):argname "N"
    :convert(above_zero "whole")
  run:flag("-k --keep-going", "After a failure run the steps that do not depend on it.")
  run:option("-f --force", "Run a step though it is up to date; may be repeated."):argname "STEP":count "*"
  run:flag("--fresh", "Run everything from the start, whatever is up to date or was interrupted.")
  run:option("--checkpoint", "Seconds between the checkpoints of a training that names none."):argname "SECONDS"
    :convert(above_zero "number")
  run:flag("--sweep", "key=A,B,… runs the workflow once for each combination of values, each into a folder of its own.")
  run:flag("-q --quiet", "Print errors and warnings only.")
  run:flag("-v --verbose", "Print more: devices, submissions, times.")

  workflow_arguments(p:command("status", "Tell of each step of a workflow whether it is up to date."))

  local why = p:command("explain", "Tell why a step would run: what changed, in old and new values.")
  workflow_arguments(why)
  device_option(why)
  why:flag("--program", "Print the step program of its training instead, one operation a line.")

  local verify = p:command("verify", "Run the steps of a run file again and compare; exit status 4: it differs.")
  verify:argument("run", "The run file."):argname "RUN"
  verify:option("--input", "Where an input is now; may be repeated."):argname "NAME=FILE":count "*"
  verify:option("--device", "Instead of the run's devices."):argname "D[,D…]"
  verify:option("--segments", "Check so many stretches between kept checkpoints instead of everything."):argname "N"
    :convert(above_zero "whole")
  verify:flag("-v --verbose", "Print how the run goes.")

  local devices = p:command("devices", "List every device, and why one cannot be used.")
  devices:flag("--json", "As JSON.")
  devices:flag("--bandwidth", "Measure how fast they exchange gradients, with the host and with one another.")

  local import = p:command("import", "Make a data set file.")
  import:argument("format", "Format of the source."):choices { "mnist" }
  import:argument("source", "Folder of the four IDX files, plain or .gz."):argname "DIR"
  import:option("-o --output", "The file to write."):argname "FILE":count(1)

  reading.declare(p, above_zero)
  return p
end

-- Whether all processes take part, where several were started together.
local function is_for_all(arguments)
  for _, argument in ipairs(arguments) do
    if argument == "--help" or argument:find "^%-%a*h" then return false end
  end
  return arguments[1] == "run"
end

local function execute(arguments, together)
  local p = parser()
  local ok, result = p:pparse(arguments)
  if not ok then
    io.stderr:write(p:get_usage(), "\n")
    complain(result)
    return runner.USAGE
  end
  result.together = together
  return (commands[result.command] or reading.commands[result.command])(result)
end

--- @param arguments string[]
--- @return integer exit status
function cli.main(arguments)
  if arguments[1] == "--worker" then return require("lavaflow.worker").main() end
  if arguments[1] == "--member" then return require("lavaflow.member").lead() end
  local rank = core.ranks_started()
  if not rank then return execute(arguments) end
  if not is_for_all(arguments) then
    if rank > 0 then return runner.DONE end
    require("lavaflow.ranks").leave()
    return execute(arguments)
  end
  if rank > 0 then return require("lavaflow.member").follow(rank) end
  local together = require("lavaflow.together").create()
  return together:finish(execute(arguments, together))
end

return cli
