-- `lavaflow runs`: a line for each run file.
local cjson = require "cjson"
local files = require "lavaflow.files"
local options = require "lavaflow.options"
local progress = require "lavaflow.progress"
local runfile = require "lavaflow.runfile"
local tables = require "lavaflow.tables"

local runs = {}

local COLUMNS = 120 -- where there is no terminal

-- The live file of a run that has ended is on its way out.
local function is_left_over(path)
  local final = runfile.final_name(path)
  local run, live = final and files.is_file(final) and runfile.read(final), final and runfile.read(path)
  return run and live and run:uuid() == live:uuid()
end

-- The run files of these folders and files; those that cannot be read are complained of. False when one that was named
-- is missing or none.
local function read_all(places, complain)
  local list, taken, found, good = {}, {}, {}, true
  for _, place in ipairs(places) do
    local named = not files.is_folder(place)
    for _, one in ipairs(named and { place } or runfile.below(place)) do
      local path = files.normal(one)
      if not taken[path] then list[#list + 1] = { path = path, named = named } end
      taken[path] = true
    end
  end
  for _, one in ipairs(list) do
    local run, message, other = runfile.read(one.path)
    local gone = not one.named and not files.is_file(one.path) -- a live file whose run has ended meanwhile
    if not run and not gone and (one.named or not other) then complain(message) end
    good = good and (run ~= nil or not one.named)
    if run and not (run.live and is_left_over(one.path)) then found[#found + 1] = run end
  end
  return found, good
end

-- The last value of a metric, of the last training that has it; "STEP.METRIC" of that one, or of an evaluation.
local function value_of(run, metric)
  local training, name = runfile.split_metric(metric)
  if training then
    local scores = (run.entry.evaluations or {})[training]
    local score = type(scores) == "table" and scores[name]
    return run:last(training, name) or type(score) == "number" and score or nil
  end
  local last
  for _, one in ipairs(run:trainings()) do last = run:last(one, name) or last end
  return last
end

local main = { "val_loss", "accuracy", "loss" }

-- Names of the metrics of these runs: the accuracy of the validation, the workflows' own, the other main ones.
local function metrics_of(list)
  local present, names = {}, {}
  for _, run in ipairs(list) do
    for _, training in ipairs(run:trainings()) do
      for _, name in ipairs(run:metrics(training)) do present[name] = true end
    end
  end
  for _, name in ipairs(options.names(present)) do
    if not runfile.of_training[name] then names[#names + 1] = name end
  end
  if present.val_accuracy then table.insert(names, 1, "val_accuracy") end
  for _, name in ipairs(main) do
    if present[name] then names[#names + 1] = name end
  end
  return names
end

-- Best first; those that have no value, or one that is no number, come last.
local function sort(list, metric, reverse)
  local values, places, some = {}, {}, false
  local falling = runfile.is_loss(select(2, runfile.split_metric(metric)))
  for i, run in ipairs(list) do
    local value = value_of(run, metric)
    some = some or value ~= nil
    if value == value then values[run] = value end
    places[run] = i
  end
  if not some and #list > 0 then
    runfile.misuse("--sort %s: no run has such a metric; they have %s", metric, table.concat(metrics_of(list), ", "))
  end
  if reverse then falling = not falling end
  table.sort(list, function(a, b)
    local x, y = values[a], values[b]
    if x == nil or y == nil or x == y then
      if (x == nil) ~= (y == nil) then return y == nil end
      return places[a] < places[b]
    end
    if falling then return x < y end
    return x > y
  end)
end

local function started(run) return tostring(run.entry.start_time or "") end

local function arrange(list, given)
  table.sort(list, function(a, b)
    if started(a) ~= started(b) then return started(a) > started(b) end
    return a.file < b.file
  end)
  if given.sort then
    sort(list, given.sort, given.reverse)
  elseif given.reverse then
    for i = 1, #list // 2 do list[i], list[#list + 1 - i] = list[#list + 1 - i], list[i] end
  end
  return table.move(list, 1, math.min(given.limit or #list, #list), 1, {})
end

-- The columns that there may be, from left to right, the ones with the lowest rank first to stay.
local function all_columns(list, given)
  local columns = {}
  local function add(rank, title, cell) columns[#columns + 1] = { rank = rank, title = title, cell = cell } end
  local function number(value) return value and tables.number(value) or "" end
  add(1, "file", function(run) return run.file end)
  add(9, "workflow", function(run) return run.entry["script@file_name"] or "" end)
  add(3, "status", function(run) return run:status() end)
  add(8, "start (UTC)", function(run) return (started(run):sub(1, 16):gsub("T", " ")) end)
  add(7, "seconds", function(run) return ("%.1f"):format(run:seconds()) end)
  for _, name in ipairs(runfile.differing(list)) do
    add(5, name, function(run)
      local value = run:parameters()[name]
      return value == nil and "" or tables.text(value)
    end)
  end
  if given.sort then add(2, given.sort, function(run) return number(value_of(run, given.sort)) end) end
  for i, name in ipairs(metrics_of(list)) do
    if name ~= given.sort then add(i == 1 and 4 or 6, name, function(run) return number(value_of(run, name)) end) end
  end
  return columns
end

-- As many columns as fit.
local function choose(list, given, width)
  local columns = all_columns(list, given)
  local order = table.move(columns, 1, #columns, 1, {})
  for i, column in ipairs(columns) do
    column.place, column.cells, column.width = i, { column.title }, tables.width(column.title)
    for j, run in ipairs(list) do
      column.cells[j + 1] = column.cell(run)
      column.width = math.max(column.width, tables.width(column.cells[j + 1]))
    end
  end
  table.sort(order, function(a, b)
    if a.rank ~= b.rank then return a.rank < b.rank end
    return a.place < b.place
  end)
  local taken = -2
  for _, column in ipairs(order) do
    column.fits = column.rank == 1 or taken + 2 + column.width <= width
    if column.fits then taken = taken + 2 + column.width end
  end
  return columns
end

local function print_table(list, given)
  local rows, columns = {}, choose(list, given, progress.create({}).columns or COLUMNS)
  for i = 1, #list + 1 do
    rows[i] = {}
    for _, column in ipairs(columns) do
      if column.fits then table.insert(rows[i], column.cells[i]) end
    end
  end
  tables.write_rows(rows, "")
end

-- A number as JSON has it.
local function finite(value) return value - value == 0 and value or cjson.null end

local function describe(run)
  local about = { file = run.file, uuid = run:uuid(), workflow = run.entry["script@file_name"], status = run:status(),
    start = run.entry.start_time, ["end"] = run.entry.end_time, seconds = run:seconds(), parameters = {},
    metrics = {}, evaluations = {} }
  for name, value in pairs(run:parameters()) do
    about.parameters[name] = type(value) == "number" and finite(value) or value
  end
  for _, training in ipairs(run:trainings()) do
    for _, name in ipairs(run:metrics(training)) do
      about.metrics[training .. "." .. name] = finite(run:last(training, name))
    end
  end
  for _, evaluation in ipairs(run:evaluations()) do
    for _, name in ipairs(runfile.members(run.entry.evaluations[evaluation])) do
      local score = run.entry.evaluations[evaluation][name]
      if type(score) == "number" then about.evaluations[evaluation .. "." .. name] = finite(score) end
    end
  end
  return about
end

local function print_json(list)
  local lines = {}
  for i, run in ipairs(list) do lines[i] = cjson.encode(describe(run)) end
  tables.write("[", table.concat(lines, ",\n"), "]\n")
end

--- @param given { place: string[], sort: string?, reverse: boolean?, limit: integer?, json: boolean? }
--- @param complain fun(message: string)
--- @return integer exit status
function runs.list(given, complain)
  local places = #given.place > 0 and given.place or { runfile.FOLDER }
  local nothing = #given.place == 0 and not files.is_folder(runfile.FOLDER)
  local list, good = read_all(nothing and {} or places, complain)
  list = arrange(list, given)
  if given.json then
    print_json(list)
  elseif #list > 0 then
    print_table(list, given)
  else
    complain("no run files below " .. table.concat(places, ", "))
  end
  return good and 0 or 1
end

return runs
