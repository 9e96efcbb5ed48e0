-- The processes that mpirun or srun has started together, as the runner sees them, which is in the first of them. MPI
-- lets one process of each take part for as long as all of them run, so the steps are run one after the other by one
-- process that the runner starts here, and by the others of the job. member.lua is the other side.
local cjson = require "cjson"
local uv = require "luv"
local files = require "lavaflow.files"
local process = require "lavaflow.process"

local together = {}

--- @class lavaflow.together
--- @field locks integer[] descriptors that the process keeps open as long as it lives
--- @field process userdata? once it is started
--- @field ended boolean? it has
local Together = {}
Together.__index = Together

--- @return lavaflow.together
function together.create() return setmetatable({ locks = {} }, Together) end

-- Takes the step that runs.
local function take_step(self)
  local step = self.step
  self.step = nil
  if self.watch then self.watch:close() end
  self.watch = nil
  return step
end

-- The step has ended and the process has not. Its last lines may still be on their way.
local function finish_step(self)
  local step, timer = take_step(self), uv.new_timer()
  timer:start(10, 0, function()
    timer:close()
    step.on_exit(0, 0)
  end)
end

-- MPICH's launcher talks to its process by a descriptor, which must be passed on under a number that is free.
local function inherited(self)
  local descriptors, environment = table.move(self.locks, 1, #self.locks, 1, {}), {}
  local pmi = tonumber(os.getenv "PMI_FD")
  if pmi then
    descriptors[#descriptors + 1] = pmi
    environment.PMI_FD = tostring(process.FIRST_INHERITED + #descriptors - 1)
  end
  return descriptors, environment
end

local function start(self)
  local descriptors, environment = inherited(self)
  local message
  self.process, message, self.input = process.spawn("--member", {
    inherited = descriptors, environment = environment,
    on_line = function(level, text)
      if self.step then return self.step.on_line(level, text) end
      io[level == "err" and "stderr" or "stdout"]:write(text, "\n")
    end,
    on_message = function(told)
      if not self.step then return end
      self.step.on_message(told)
      if told.status and not told.leaves then finish_step(self) end
    end,
    on_exit = function(code, signal)
      self.ended, self.failed = true, code ~= 0 or signal ~= 0
      local step = take_step(self)
      if step then step.on_exit(code, signal) end
    end,
  })
  self.ended = not self.process
  return self.process, message
end

local WATCH = 200 -- milliseconds

-- The step may have ended in another process alone. It cannot tell this one's, which waits for it: it is ended.
local function watch(self, path)
  self.watch = uv.new_timer()
  self.watch:start(WATCH, WATCH, function()
    local number, status, message = (files.is_file(path) and files.read(path) or ""):match "^(%d+)\n(%w+)\n(.*)$"
    if not number then return end
    self.step.on_message { status = status, message = ("process %s: %s"):format(number, message) }
    self.watch:stop()
    self.process:kill "sigkill"
  end)
end

--- Runs a step in all processes: process.start for these, one step at a time.
function Together:start(job, given)
  if self.ended then return nil, "the processes do not work together any more" end
  if not self.process then
    local ok, message = start(self)
    if not ok then return nil, message end
  end
  self.step, job.alone = given, job.journal .. ".alone"
  files.remove(job.alone)
  watch(self, job.alone)
  self.input:write(cjson.encode(job) .. "\n")
  return self.process
end

--- Ends all processes, with an exit status.
--- @param code integer
--- @return integer # what the runner is to end with
function Together:finish(code)
  if not self.process and not self.ended then -- the others wait for it
    local ok, message = start(self)
    if not ok then io.stderr:write("lavaflow: ", message, "\n") end
  end
  if not self.ended then self.input:write(cjson.encode { finish = code } .. "\n") end
  while not self.ended do uv.run "once" end
  if self.input then self.input:close() end
  uv.run "nowait"
  -- A process that has left the others waiting: they end because this one fails.
  return code == 0 and (self.failed or not self.process) and 1 or code
end

return together
