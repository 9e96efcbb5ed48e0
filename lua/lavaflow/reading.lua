-- The part of the command line that only reads run files: its commands, their options, and how they fail.
local runner = require "lavaflow.runner"
local tables = require "lavaflow.tables"

local reading = {}

local function complain(message) io.stderr:write("lavaflow: ", message, "\n") end

-- Exit status of a command; what it raises is told. A reader that has seen enough is not.
local function call(fn, ...)
  local ok, result = pcall(fn, ...)
  if ok then ok, result = pcall(function(code)
    tables.flush()
    return code
  end, result) end
  if ok then return result end
  local failure = type(result) == "table" and result or { code = runner.FAILED, message = tostring(result) }
  if failure.message ~= "standard output: Broken pipe" then complain(failure.message) end
  return failure.code
end

-- "a,b" of each as one list.
local function listed(texts)
  local list = {}
  for _, text in ipairs(texts) do
    for one in text:gmatch "[^,]+" do list[#list + 1] = one end
  end
  return list
end

local function load(name) return require("lavaflow." .. name) end

reading.commands = {
  show = function(args)
    return call(function()
      load("show").run(args.run)
      return runner.DONE
    end)
  end,
  runs = function(args) return call(load("runs").list, args, complain) end,
  log = function(args) return call(load("log").print, args) end,
  watch = function(args) return call(load("watch").run, args) end,
  recover = function(args) return call(load("recover").run, args) end,
  diff = function(args) return call(load("diff").print, args) end,
  export = function(args)
    args.metric = listed(args.metric)
    return call(load("export").csv, args)
  end,
  plot = function(args)
    args.metric = listed(args.metric)
    return call(load("plot").draw, args)
  end,
}

local function run_argument(command)
  command:argument("run", "The run file; X.h5 stands for X.live.h5 while the run goes on."):argname "RUN"
end

local function metric_option(command)
  command:option("--metric", "Only these metrics, METRIC or TRAINING.METRIC; may be repeated."):argname "NAME[,NAME…]"
    :count "*"
end

--- Declares the commands.
--- @param p table the parser
--- @param above_zero fun(kind: string): fun(text: string) that converts a number
function reading.declare(p, above_zero)
  local runs = p:command("runs", "List runs with their parameters that differ and their metrics, the newest first.")
  runs:argument("place", "Folders to look below, or run files; runs, if none is named."):argname "FOLDER|FILE"
    :args "*"
  runs:option("--sort", "Best first by the last value of METRIC or TRAINING.METRIC."):argname "METRIC"
  runs:flag("--reverse", "In the opposite order.")
  runs:option("--limit", "Only the first N."):argname "N":convert(above_zero "whole")
  runs:flag("--json", "As JSON, with all metrics.")

  run_argument(p:command("show", "Summarise a run file."))

  local log = p:command("log", "Print what a run has told: seconds since its start, level, step, text.")
  run_argument(log)
  log:argument("step", "Only the lines of this step."):argname "STEP":args "?"
  log:flag("-f --follow", "Go on until the run ends.")

  local watch = p:command("watch", "Print the epochs of a run that goes on, as they come, until it ends.")
  watch:argument("run", "The run file or its live file; the newest live file below runs, if none is named.")
    :argname "RUN":args "?"

  local recover = p:command("recover", "Make a run file of the live file that a killed run has left.")
  recover:argument("file", "The live file, NAME.live.h5."):argname "FILE"
  recover:option("-o --output", "Run file, instead of NAME.h5."):argname "FILE"

  local diff = p:command("diff", "Tell what differs between two runs, from the script to the weights.")
  diff:argument("a", "The run file that comes first."):argname "A"
  diff:argument("b", "The run file that it is compared with."):argname "B"
  diff:flag("--exit-code", "Exit status 1 if they differ.")

  local export = p:command("export", "Print all values of a run's metrics as CSV.")
  run_argument(export)
  export:flag("--csv", "As CSV, which is the default.")
  export:option("-o --output", "Write to a file, or to RUN.csv in a folder."):argname "FILE|DIR"
  metric_option(export)

  local plot = p:command("plot", "Draw metrics of runs over their training steps; needs gnuplot.")
  plot:argument("run", "The run files."):argname "RUN":args "+"
  plot:option("-o --output", "Picture, .svg, .png or .pdf; the terminal, if none is named."):argname "FILE"
  metric_option(plot)
  plot:flag("--log", "Losses on a logarithmic scale.")
end

return reading
