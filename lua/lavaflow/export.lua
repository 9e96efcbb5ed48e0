-- `lavaflow export`: all metrics of a run as CSV.
local files = require "lavaflow.files"
local runfile = require "lavaflow.runfile"
local tables = require "lavaflow.tables"

local export = {}

local function quoted(text)
  return text:find '[",\r\n]' and '"' .. text:gsub('"', '""') .. '"' or text
end

-- "loss" or "train.loss" asks for a metric.
local function is_wanted(wanted, training, name)
  for _, metric in ipairs(wanted) do
    if metric == name or metric == training .. "." .. name then return true end
  end
  return #wanted == 0
end

-- Calls `write` with the text of each series.
local function each_series(run, wanted, write)
  local found
  for _, training in ipairs(run:trainings()) do
    for _, name in ipairs(run:metrics(training)) do
      if is_wanted(wanted, training, name) then
        local series, lines = run:series(training, name), {}
        local head = quoted(training) .. "," .. quoted(name)
        for i, value in ipairs(series.value) do
          lines[i] = ("%s,%d,%s,%s\n"):format(head, series.step[i], tables.exact(series.time[i]), tables.exact(value))
        end
        write(table.concat(lines))
        found = true
      end
    end
  end
  if not found and #wanted > 0 then
    runfile.misuse("--metric %s: no such metric in %s", table.concat(wanted, ","), run.file)
  end
end

--- @param given { run: string, output: string?, metric: string[] }
--- @return integer exit status
function export.csv(given)
  local run, pieces = runfile.open(given.run), { "training,metric,step,time,value\n" }
  each_series(run, given.metric, function(text) pieces[#pieces + 1] = text end)
  local output = given.output
  if not output then
    for _, piece in ipairs(pieces) do tables.write(piece) end
    return 0
  end
  if files.is_folder(output) then
    output = ("%s/%s.csv"):format(output:gsub("(.)/+$", "%1"), files.stem(runfile.final_name(run.file) or run.file))
  end
  run:protect(output)
  runfile.write(output, table.concat(pieces))
  return 0
end

return export
