-- A process of several that run the steps of a workflow together. The first is told by the runner (together.lua) which
-- step to run, the others by the first; only the first tells how it goes, and only what it makes is kept.
local cjson = require "cjson"
local uv = require "luv"
local core = require "lavaflow.core"
local files = require "lavaflow.files"
local options = require "lavaflow.options"
local ranks = require "lavaflow.ranks"
local worker = require "lavaflow.worker"

local member = {}

-- Seconds in which the others can come to the error that one has met. Then it is that one's own, and the others wait
-- for it in vain: the runner is told, and has so many more to end them all.
local GRACE, MORE = 5, 10

-- Signals are for the steps: between them they wait.
local function begin(parent)
  core.catch_signals(parent)
  core.ignore_broken_pipes()
  core.hold_signals(true)
  local threads = ranks.threads()
  if threads then uv.os_setenv("LAVAFLOW_THREADS", tostring(threads)) end
end

local function work(job, send)
  local status, message, modules = worker.attempt(function()
    core.hold_signals(false)
    local results = table.pack(worker.run(job, send))
    core.hold_signals(true)
    return table.unpack(results, 1, results.n)
  end)
  core.hold_signals(true)
  collectgarbage() -- what the step has opened on devices
  return status, message, modules
end

-- How it went in all processes, "STATUS\nMESSAGE" of each; nil where some have not come to the step's end.
local function meet(status, message)
  return core.ranks_meet(("%s\n%s"):format(status, message or ""), status ~= "completed" and GRACE or nil)
end

local severity = { completed = 0, interrupted = 1, failed = 2 }

-- What is said of the step: what is worst, by the first process that says so.
local function judge(told)
  local status, message = "completed", nil
  for i, text in ipairs(told) do
    local one, why = text:match "^(%w+)\n(.*)$"
    if severity[one] > severity[status] then
      status, message = one, i > 1 and ("process %d: %s"):format(i - 1, why) or why
    end
  end
  return status, message
end

-- Lines of standard input; a signal does not end them. nil at its end.
local function line_reader()
  local text = ""
  return function()
    while true do
      local line, rest = text:match "^([^\n]*)\n(.*)$"
      if line then
        text = rest
        return line
      end
      local piece, why = uv.fs_read(0, 65536, -1)
      if piece == "" or (not piece and not why:find "^EINTR") then return nil end
      text = text .. (piece or "")
    end
  end
end

--- The first process. It runs the jobs that come as lines on standard input.
--- @return integer exit status
function member.lead()
  begin(uv.os_getppid())
  local joined, why = pcall(core.ranks)
  for line in line_reader() do
    local job = cjson.decode(line)
    if not joined then
      if job.finish then io.stderr:write("lavaflow: ", why, "\n") end
      worker.send { status = "failed", message = why, leaves = true }
      return 1
    end
    core.ranks_broadcast(line)
    if job.finish then
      core.ranks_close()
      return 0
    end
    local status, message, modules = work(job, worker.send)
    local told = meet(status, message)
    if told then status, message = judge(told) end
    worker.send { status = status, message = message, modules = modules, leaves = not told }
    if not told then return worker.exit_codes[status] end
  end
  return 1 -- the runner is gone
end

local function complain(number, message)
  io.stderr:write(("lavaflow: process %d: %s\n"):format(number, message))
end

-- Gives the step a folder for what it writes.
local function make_folder(job)
  local folder = assert(uv.fs_mkdtemp((os.getenv "TMPDIR" or "/tmp") .. "/lavaflow-XXXXXX"))
  for i, name in ipairs(options.names(job.output)) do
    job.output[name] = ("%s/%d-%s"):format(folder, i, job.output[name]:match "[^/]*$")
  end
  job.own_journal = folder .. "/journal"
  return folder
end

local function remove_folder(folder)
  for _, name in ipairs(files.list(folder)) do files.remove(folder .. "/" .. name) end
  uv.fs_rmdir(folder)
end

--- A process that is not the first.
--- @param number integer its own, from 1
--- @return integer exit status
function member.follow(number)
  begin()
  local joined, why = pcall(core.ranks)
  if not joined then
    uv.sleep(GRACE * 1000) -- the first says the same
    complain(number, why)
    return 1
  end
  local function send(message) -- a device of this process may be lost
    if message.log and message.log[1] ~= "info" then complain(number, table.concat(message.log, ": ")) end
  end
  while true do
    local job = cjson.decode(core.ranks_broadcast())
    if job.finish then
      core.ranks_close()
      return math.tointeger(job.finish)
    end
    local folder = make_folder(job)
    job.columns, job.verbose = nil, nil
    local status, message = work(job, send)
    remove_folder(folder)
    if not meet(status, message) then
      files.replace(job.alone, ("%d\n%s\n%s"):format(number, status, message))
      uv.sleep(MORE * 1000)
      complain(number, ('step "%s": %s'):format(job.step, message))
      core.ranks_abort(worker.exit_codes[status])
    end
  end
end

return member
