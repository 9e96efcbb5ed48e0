-- The process that runs a step, as the runner sees it: what it is told, and what it says. worker.lua is the other side.
local cjson = require "cjson"
local uv = require "luv"

local process = {}

--- What a step's process is told, as JSON on its standard input.
--- @class lavaflow.job
--- @field script string path of the workflow
--- @field sources table<string, string> its Lua files by path, as the runner has read them
--- @field overrides table<string, string>
--- @field folder string? that the outputs are in
--- @field step string
--- @field devices string[]? that its trainings use, instead of "auto"
--- @field shards table<string, integer>? of a batch, by training, where the script says nothing
--- @field input table<string, string> where its inputs are, by name
--- @field output table<string, string> where it writes its outputs, by name
--- @field journal string its metrics and log
--- @field own_journal string? of a process that writes to another one
--- @field alone string? file in which one of several processes tells how the step went in it alone
--- @field uuid string of the run
--- @field elapsed number seconds that earlier processes of this step took
--- @field checkpoints { folder: string, seconds: number, steps: integer?, keep: integer? }
--- @field run_file string
--- @field columns integer? of the terminal
--- @field quiet boolean?
--- @field verbose boolean?
--- @field parent integer process number of the runner
--- @field scratch boolean? checkpoints and the like that the script names are neither read nor written
--- @field segment lavaflow.segment? only this stretch of a training is to be run

local function environment(given)
  local values, list = uv.os_environ(), {}
  for name, value in pairs(given) do values[name] = value end
  for name, value in pairs(values) do list[#list + 1] = name .. "=" .. value end
  return list
end

-- Calls `on_line` for each line that comes, and `on_end` after the last.
local function read_lines(pipe, on_line, on_end)
  local begun = {} -- pieces of the line that has not ended yet
  pipe:read_start(function(_, piece)
    if piece then
      local from = 1
      for line, after in piece:gmatch "([^\n]*)\n()" do
        begun[#begun + 1] = line
        on_line(table.concat(begun))
        begun, from = {}, after
      end
      if from <= #piece then begun[#begun + 1] = piece:sub(from) end
    else
      if #begun > 0 then on_line(table.concat(begun)) end
      pipe:close()
      on_end()
    end
  end)
end

process.FIRST_INHERITED = 4 -- after input, output, errors and messages

--- Starts the program that is running, the interpreter and the launcher, once more. It keeps the descriptors
--- `inherited` open as long as it lives, numbered from FIRST_INHERITED.
--- @param argument string
--- @param given { environment: table<string, string>, inherited: integer[], on_message: fun(message: table),
---   on_line: fun(level: string, text: string), on_exit: fun(code: integer, signal: integer) } on_exit comes after all
---   that the process said
--- @return userdata? process # nil and a message
--- @return string? message
--- @return userdata? input # pipe
function process.spawn(argument, given)
  local input, output, errors, messages = uv.new_pipe(), uv.new_pipe(), uv.new_pipe(), uv.new_pipe()
  local open, code, signal = 4, nil, nil
  local function ended()
    open = open - 1
    if open == 0 then given.on_exit(code, signal) end
  end
  local path, stdio = uv.exepath(), { input, output, errors, messages }
  table.move(given.inherited, 1, #given.inherited, #stdio + 1, stdio)
  local handle, why
  handle, why = uv.spawn(path, {
    args = { arg[0], argument }, stdio = stdio, env = environment(given.environment),
  }, function(exit_code, exit_signal)
    code, signal = exit_code, exit_signal
    handle:close()
    ended()
  end)
  if not handle then
    for _, pipe in ipairs { input, output, errors, messages } do pipe:close() end
    return nil, ("%s: cannot be started: %s"):format(path, why)
  end
  read_lines(output, function(line) given.on_line("out", line) end, ended)
  read_lines(errors, function(line) given.on_line("err", line) end, ended)
  read_lines(messages, function(line)
    local ok, message = pcall(cjson.decode, line)
    if ok then given.on_message(message) end
  end, ended)
  return handle, nil, input
end

--- Starts the process of a job.
--- @param job lavaflow.job
--- @param given table as of process.spawn
--- @return userdata? process # nil and a message
--- @return string? message
function process.start(job, given)
  local handle, message, input = process.spawn("--worker", given)
  if not handle then return nil, message end
  -- A process that is gone before it has read its job is told of by its exit.
  input:write(cjson.encode(job), function() input:close() end)
  return handle
end

--- "SIGSEGV" for 11.
function process.signal_name(number)
  for name, value in pairs(uv.constants) do
    if value == number and name:find "^SIG%u" then return name end
  end
  return "signal " .. number
end

return process
