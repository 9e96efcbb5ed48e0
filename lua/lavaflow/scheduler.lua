-- Runs tasks that depend on each other, several at a time, each on device slots of its own. It knows neither steps nor
-- processes.
local uv = require "luv"

local scheduler = {}

--- A place where one task runs at a time.
--- @class lavaflow.slot
--- @field device lavaflow.device? nil: what "auto" gives
--- @field threads integer? that a task on the CPU may use

--- @class lavaflow.task
--- @field needs lavaflow.task[]
--- @field devices integer how many slots it takes
--- @field start fun(slots: lavaflow.slot[], finish: fun(status: string)) calls `finish` once, at once or later, with
---   "completed", "up to date", "failed" or "interrupted"
--- @field status string? how it ended; nil: it was not started

--- @class lavaflow.scheduler
local Scheduler = {}
Scheduler.__index = Scheduler

--- @param tasks lavaflow.task[] those that are ready start in this order
--- @param given { slots: lavaflow.slot[], jobs: integer, keep_going: boolean? }
--- @return lavaflow.scheduler
function scheduler.create(tasks, given)
  return setmetatable({ tasks = tasks, free = table.move(given.slots, 1, #given.slots, 1, {}), jobs = given.jobs,
    keep_going = given.keep_going, running = 0 }, Scheduler)
end

--- No task is started any more; those that run go on.
function Scheduler:stop() self.stopped = true end

local good = { completed = true, ["up to date"] = true }

local function is_ready(task)
  if task.started then return false end
  for _, other in ipairs(task.needs) do
    if not good[other.status] then return false end
  end
  return true
end

local start_ready

local function start(self, task)
  local slots = table.move(self.free, 1, task.devices, 1, {})
  for _ = 1, task.devices do table.remove(self.free, 1) end
  task.started, self.running = true, self.running + 1
  task.start(slots, function(status)
    task.status, self.running = status, self.running - 1
    table.move(slots, 1, #slots, #self.free + 1, self.free)
    if not good[status] and not self.keep_going then self:stop() end
    start_ready(self)
  end)
end

-- Starting one may finish it at once and start others.
function start_ready(self)
  for _, task in ipairs(self.tasks) do
    if self.stopped or self.running >= self.jobs then return end
    if task.devices <= #self.free and is_ready(task) then start(self, task) end
  end
end

--- Runs until nothing is left that can be started.
function Scheduler:run()
  start_ready(self)
  while self.running > 0 do uv.run "once" end
end

return scheduler
