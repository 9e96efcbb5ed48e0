-- How a run goes, for a person: on a terminal one updating line per training, elsewhere one line per epoch.
local core = require "lavaflow.core"
local results = require "lavaflow.results"

local progress = {}

--- @class lavaflow.reporter
local Reporter = {}
Reporter.__index = Reporter

-- Without luv there is no terminal to ask about, and nothing else here needs it.
local has_uv, uv = pcall(require, "luv")

local function terminal_columns()
  if not has_uv or uv.guess_handle(1) ~= "tty" or os.getenv "TERM" == "dumb" then return nil end
  if core.ranks_started() then return nil end -- mpirun gives its processes terminals that nobody sees
  local tty = uv.new_tty(1, false)
  local columns = tty and tty:get_winsize()
  if tty then
    tty:set_blocking(true) -- else a terminal that is slow loses what is written
    tty:close()
    uv.run "nowait" -- a close that is still pending when the Lua state ends makes luv read freed memory
  end
  return columns and columns > 20 and columns or 80
end

--- @param given { quiet: boolean?, verbose: boolean? }
--- @return lavaflow.reporter
function progress.create(given)
  return setmetatable({
    quiet = given.quiet, verbose = given.verbose, board = {},
    columns = not given.quiet and terminal_columns() or nil,
  }, Reporter)
end

local function write(text)
  io.stdout:write(text)
  io.stdout:flush()
end

-- The updating lines stand below all others; the cursor is at the end of the last one.
local function erase(self)
  if #self.board == 0 then return end
  write((#self.board > 1 and ("\27[%dA"):format(#self.board - 1) or "") .. "\r\27[J")
end

local function draw(self)
  local texts = {}
  for i, line in ipairs(self.board) do texts[i] = line.text:sub(1, self.columns - 1) end
  write(table.concat(texts, "\n"))
end

local function find(self, name)
  for i, line in ipairs(self.board) do
    if line.name == name then return i end
  end
end

--- Shows a line that later updates of the same name replace.
function Reporter:update(name, text)
  local at = find(self, name)
  if not at or #self.board > 1 then erase(self) end
  self.board[at or #self.board + 1] = { name = name, text = text }
  if #self.board == 1 then write "\r" end
  draw(self)
  if #self.board == 1 then write "\27[K" end
end

--- Leaves the updating line as it stands.
function Reporter:close_line(name)
  local at = find(self, name)
  if not at then return end
  erase(self)
  local line = table.remove(self.board, at)
  write(line.text:sub(1, self.columns - 1) .. "\n")
  draw(self)
end

--- Prints a line, unless quiet.
function Reporter:say(text)
  if self.quiet then return end
  erase(self)
  write(text .. "\n")
  draw(self)
end

--- A message of the plugin or the runner; warnings and errors go to stderr.
function Reporter:log(level, text)
  if level == "error" or level == "warn" then
    self:error_line(("lavaflow: %s%s"):format(level == "warn" and "warning: " or "", text))
  elseif level == "info" or self.verbose then
    self:say(text)
  end
end

--- Prints a line only when asked for more.
function Reporter:verbose_line(text)
  if self.verbose then self:say(text) end
end

--- A line for stderr as it is.
function Reporter:error_line(text)
  erase(self)
  io.stderr:write(text, "\n")
  draw(self)
end

-- A reporter in a step's process: the runner's does what it is asked.
local Remote = setmetatable({}, { __index = Reporter })
Remote.__index = Remote

--- @param send fun(message: table)
--- @param given { quiet: boolean?, verbose: boolean?, columns: integer? }
--- @return lavaflow.reporter
function progress.remote(send, given)
  return setmetatable({ send = send, quiet = given.quiet, verbose = given.verbose, columns = given.columns }, Remote)
end

function Remote:update(name, text) self.send { update = { name, text } } end
function Remote:close_line(name) self.send { close = name } end
function Remote:say(text) self.send { say = text } end
function Remote:log(level, text) self.send { log = { level, text } } end

--- Does what a remote reporter has asked for.
--- @param message table
function Reporter:obey(message)
  if message.update then
    self:update(table.unpack(message.update))
  elseif message.close then
    self:close_line(message.close)
  elseif message.say then
    self:say(message.say)
  elseif message.log then
    self:log(table.unpack(message.log))
  end
end

local function number(value)
  local size = math.abs(value)
  return (size ~= 0 and (size < 1e-3 or size >= 1e5) and "%.3e" or "%.4f"):format(value)
end

local function rate(rows)
  if rows >= 1e6 then return ("%.1fM rows/s"):format(rows / 1e6) end
  if rows >= 1e3 then return ("%.0fk rows/s"):format(rows / 1e3) end
  return ("%.0f rows/s"):format(rows)
end

local function duration(seconds)
  local whole = math.floor(math.min(seconds, 1e9) + 0.5)
  if whole >= 3600 then return ("%d:%02d:%02d"):format(whole // 3600, whole // 60 % 60, whole % 60) end
  return ("%d:%02d"):format(whole // 60, whole % 60)
end

local function values(logs, names)
  local parts = {}
  for _, name in ipairs(names) do
    if logs[name] then parts[#parts + 1] = name .. " " .. number(logs[name]) end
  end
  return table.concat(parts, "  ")
end

local INTERVAL = 1e8 -- ns between two updates of a line: faster cannot be read

--- A training's line.
--- @class lavaflow.progress_line
local Line = {}
Line.__index = Line
Line.__close = function(line) line.reporter:close_line(line.name) end

local epoch_names = { "loss", "accuracy", "val_loss", "val_accuracy" }

--- @param name string of the training
--- @param asked string the devices as the script or the command line gave them
--- @return lavaflow.progress_line
function Reporter:training(name, asked)
  return setmetatable({ reporter = self, name = name, asked = asked, validation = "", next = 0 }, Line)
end

-- "vulkan:0, 4 x cpu"
local function list_devices(devices)
  local counts, parts = {}, {}
  for _, device in ipairs(devices) do counts[device.id] = (counts[device.id] or 0) + 1 end
  for _, device in ipairs(devices) do
    local count = counts[device.id]
    if count then parts[#parts + 1] = count > 1 and ("%d x %s"):format(count, device.id) or device.id end
    counts[device.id] = nil
  end
  return table.concat(parts, ", ")
end

--- @param devices lavaflow.training_device[]
--- @param step integer that it goes on after; 0: it starts
function Line:started(devices, step)
  local reporter, device = self.reporter, devices[1]
  if step > 0 then reporter:say(("%s  goes on after step %d"):format(self.name, step)) end
  if #devices > 1 then
    reporter:say(("%s  on %d devices: %s"):format(self.name, #devices, list_devices(devices)))
  elseif self.asked ~= device.id then
    reporter:say(("%s  device %s is %s (%s)"):format(self.name, self.asked, device.id, device.name))
  elseif reporter.verbose then
    reporter:say(("%s  device %s (%s)"):format(self.name, device.id, device.name))
  end
end

function Line:progress(info)
  local reporter = self.reporter
  if not reporter.columns or uv.hrtime() < self.next then return end
  self.next = uv.hrtime() + INTERVAL
  local text = ("%s  epoch %d/%d  %s%s"):format(self.name, info.epoch, info.epochs,
    values(info, { "loss", "accuracy" }), self.validation)
  if info.rows_per_second then text = text .. "  " .. rate(info.rows_per_second) end
  if info.seconds_left then text = text .. "  " .. duration(info.seconds_left) .. " left" end
  reporter:update(self.name, text)
end

function Line:epoch(epoch, logs, epochs)
  local reporter = self.reporter
  local text = ("%s  epoch %d/%d  %s"):format(self.name, epoch, epochs, values(logs, epoch_names))
  if reporter.columns then
    local validation = values(logs, { "val_loss", "val_accuracy" })
    self.validation = validation ~= "" and "  " .. validation or ""
    if epoch == 1 or epoch == epochs or uv.hrtime() >= self.next then
      self.next = uv.hrtime() + INTERVAL
      reporter:update(self.name, text)
    end
  else
    reporter:say(text)
  end
end

-- What each of several devices did.
local function tell_devices(self, history)
  local reporter, seconds = self.reporter, math.max(history.seconds, 1e-9)
  for _, device in ipairs(history.devices) do
    reporter:say(("%s  %s: %d of %d shards%s, computed %.0f %% of the time"):format(self.name,
      results.device_name(device), device.shards, history.shards, device.lost and " (lost)" or "",
      100 * device.busy / seconds))
  end
  reporter:say(("%s  gradients on their way %.0f %% of the time"):format(self.name,
    100 * history.exchange_seconds / seconds))
end

--- @param history lavaflow.history
--- @param t table the training's options
function Line:finished(history, t)
  local reporter = self.reporter
  reporter:close_line(self.name)
  if history.stopped == "patience" then
    local best = history.best_epoch and ("best %s in epoch %d"):format(number(history.best_value), history.best_epoch)
    reporter:say(("%s  ended: no better %s in %d epochs; %s"):format(self.name, t.monitor, t.patience,
      best or "it was never a number"))
  end
  if reporter.verbose then
    reporter:say(("%s  %d steps in %.2f s, %d submissions of %d dispatches, weights sha256 %s"):format(self.name,
      history.steps, history.seconds, history.submissions, history.dispatches, history.digest))
    if history.ranks > 1 then reporter:say(("%s  in %d processes"):format(self.name, history.ranks)) end
    if #history.devices > 1 then tell_devices(self, history) end
  end
end

--- Says nothing but warnings and errors.
progress.silent = progress.create { quiet = true }

return progress
