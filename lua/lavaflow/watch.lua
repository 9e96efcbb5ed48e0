-- `lavaflow watch`: the epochs of a run that goes on, as they come.
local follow = require "lavaflow.follow"
local progress = require "lavaflow.progress"
local runfile = require "lavaflow.runfile"
local tables = require "lavaflow.tables"

local watch = {}

local shown_series = { "loss", "accuracy", "val_loss", "val_accuracy" }
local complaints = { error = true, warn = true, err = true }

-- The live file of the run that began last, of those that go on.
local function newest()
  local best, latest
  for _, path in ipairs(runfile.below(runfile.FOLDER)) do
    local run = runfile.final_name(path) and runfile.read(path)
    local start = run and tostring(run.entry.start_time)
    if run and run:goes_on() ~= false and (not best or start > latest) then best, latest = path, start end
  end
  return best
end

-- A training's epochs: how many are whole, and the values of one.
local function epochs_of(run, training)
  local series, count = {}, nil
  for _, name in ipairs(shown_series) do
    local one = run:series(training, name)
    if one and #one.value > 0 then
      series[#series + 1] = { name = name, value = one.value }
      count = math.min(count or math.huge, #one.value)
    end
  end
  return count or 0, series
end

-- One line for each new epoch; of those that were there before, the last.
local function say_epochs(run, training, told, say)
  local count, series = epochs_of(run, training)
  local from = told.epochs[training] or (told.first and math.max(count - 1, 0) or 0)
  for epoch = from + 1, count do
    local parts = { ("%s  epoch %d"):format(training, epoch) }
    for _, one in ipairs(series) do parts[#parts + 1] = ("%s %s"):format(one.name, tables.number(one.value[epoch])) end
    say(table.concat(parts, "  "))
  end
  told.epochs[training] = math.max(from, count)
end

-- The values that a step has given by name, likewise.
local function say_own(run, training, told, say)
  for _, name in ipairs(run:metrics(training)) do
    if not runfile.of_training[name] then
      local key, values = training .. "." .. name, run:series(training, name).value
      local from = told.own[key] or (told.first and #values - 1 or 0)
      for i = from + 1, #values do say(("%s  %s %s"):format(training, name, tables.number(values[i]))) end
      told.own[key] = #values
    end
  end
end

local function say_complaints(run, told, say)
  local log = run:log()
  for i = told.lines + 1, #log.text do
    if complaints[log.level[i]] then say(("%s  %s"):format(log.level[i], log.text[i])) end
  end
  told.lines = #log.text
end

-- The last epoch of every training, as lines that replace those before.
local function draw(run, reporter, told)
  local rows, keys = { table.move(shown_series, 1, #shown_series, 3, { "training", "epoch" }) }, { "" }
  for _, training in ipairs(run:trainings()) do
    local count, series = epochs_of(run, training)
    if count > 0 then
      local row, by_name = { training, tostring(count) }, {}
      for _, one in ipairs(series) do by_name[one.name] = tables.number(one.value[count]) end
      for _, name in ipairs(shown_series) do row[#row + 1] = by_name[name] or "" end
      rows[#rows + 1], keys[#keys + 1] = row, training
    end
  end
  for i, line in ipairs(tables.lines(rows)) do
    if told.drawn[i] ~= line then reporter:update(keys[i], line) end
    told.drawn[i] = line
  end
  return keys
end

--- @param given { run: string? }
--- @return integer exit status
function watch.run(given)
  local file = given.run
  if not file then
    file = newest()
    if not file then error(("no run goes on below %s"):format(runfile.FOLDER), 0) end
  end
  local reporter, told, keys = progress.create {}, { epochs = {}, own = {}, lines = 0, drawn = {}, first = true }, {}
  local function say(text) reporter:say(text) end
  local ok, result = pcall(follow.run, file, function(run)
    if told.first then say("watching " .. run.file) end
    for _, training in ipairs(run:trainings()) do
      if not reporter.columns then say_epochs(run, training, told, say) end
      say_own(run, training, told, say)
    end
    say_complaints(run, told, say)
    if reporter.columns then keys = draw(run, reporter, told) end
    told.first = false
    tables.flush()
  end)
  for _, key in ipairs(keys) do reporter:close_line(key) end
  if not ok then error(result, 0) end
  say(("%s: %s"):format(result:status(), result.file))
  return 0
end

return watch
