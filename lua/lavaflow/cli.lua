-- The command line: every command with its options, and what it calls.
local argparse = require "argparse"
local core = require "lavaflow.core"
local runner = require "lavaflow.runner"
local workflow = require "lavaflow.workflow"

local cli = {}

local function complain(message)
  io.stderr:write("lavaflow: ", message, "\n")
end

-- STEP… and key=value… of a command line.
local function split_arguments(arguments)
  local names, overrides = {}, {}
  for _, argument in ipairs(arguments) do
    local key, value = argument:match "^([^=]*)=(.*)$"
    if key then overrides[key] = value else names[#names + 1] = argument end
  end
  return names, overrides
end

local function load_workflow(args)
  local names, overrides = split_arguments(args.arguments)
  local flow, message = workflow.load(args.workflow, overrides)
  if not flow then complain(message) end
  return flow, names
end

-- Before anything runs. Several devices are a list, which nothing here can use yet.
local function check_device(device)
  if not device then return true end
  if device:find "," then
    complain(("--device %s: training on several devices at once is not supported yet; give one"):format(device))
    return false
  end
  local ok, message = pcall(core.find_device, device)
  if ok then return true end
  complain("--device: " .. message)
  return false
end

local commands = {}

function commands.run(args)
  if not check_device(args.device) then return runner.USAGE end
  local flow, names = load_workflow(args)
  if not flow then return runner.USAGE end
  return runner.run(flow, { names = names, device = args.device, record = args.record, dry_run = args.dry_run,
    quiet = args.quiet, verbose = args.verbose })
end

function commands.explain(args)
  if not args.program then
    complain "explain: expected --program"
    return runner.USAGE
  end
  local flow, names = load_workflow(args)
  if not flow then return runner.USAGE end
  return runner.explain(flow, { names = names, device = args.device })
end

function commands.devices(args)
  require("lavaflow.show").devices(core.devices(), args.json)
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

function commands.show(args)
  local ok, message = pcall(require("lavaflow.show").run, args.run)
  if not ok then
    complain(message)
    return runner.FAILED
  end
  return runner.DONE
end

local function workflow_arguments(command)
  command:argument("workflow", "The script."):argname "WORKFLOW.lua"
  command:argument("arguments", "Steps (all, if none is named) with those they depend on, and parameters to set.")
    :argname "STEP|key=value":args "*"
  command:option("--device", "Device of the steps that name none: auto, cpu, vulkan:0, vulkan:NAME-PART, a UUID.")
    :argname "D"
end

local function parser()
  local p = argparse("lavaflow", "Runs workflows that train MLPs from HDF5 on a GPU through Vulkan, or on the CPU.",
    "Exit status: 0 done; 1 a step failed; 2 wrong usage or wrong script; 75 stopped by a signal after a checkpoint.")
  p:command_target "command"
  p:flag("--version", "Print the version."):action(function()
    io.stdout:write("lavaflow ", core.version, "\n")
    os.exit(runner.DONE, true)
  end)

  local run = p:command("run", "Run the steps of a workflow.")
  workflow_arguments(run)
  run:option("--record", "Run file, instead of runs/WORKFLOW/TIME-ID.h5."):argname "FILE"
  run:flag("-n --dry-run", "Print what would run.")
  run:flag("-q --quiet", "Print errors and warnings only.")
  run:flag("-v --verbose", "Print more: devices, submissions, times.")

  local explain = p:command("explain", "Print the step programs of a workflow's trainings.")
  workflow_arguments(explain)
  explain:flag("--program", "The step program, one operation a line.")

  local devices = p:command("devices", "List every device, and why one cannot be used.")
  devices:flag("--json", "As JSON.")

  local import = p:command("import", "Make a data set file.")
  import:argument("format", "Format of the source."):choices { "mnist" }
  import:argument("source", "Folder of the four IDX files, plain or .gz."):argname "DIR"
  import:option("-o --output", "The file to write."):argname "FILE":count(1)

  p:command("show", "Summarise a run file."):argument("run", "The run file."):argname "RUN"
  return p
end

--- @param arguments string[]
--- @return integer exit status
function cli.main(arguments)
  local p = parser()
  local ok, result = p:pparse(arguments)
  if not ok then
    io.stderr:write(p:get_usage(), "\n")
    complain(result)
    return runner.USAGE
  end
  return commands[result.command](result)
end

return cli
