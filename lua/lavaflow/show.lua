-- `lavaflow show` and `lavaflow devices`: run files and devices as text.
local cjson = require "cjson"
local core = require "lavaflow.core"
local runfile = require "lavaflow.runfile"
local tables = require "lavaflow.tables"

local show = {}

local write, number, members = tables.write, tables.number, runfile.members

local function size(bytes)
  return bytes >= 2^30 and ("%.1f GiB"):format(bytes / 2^30) or ("%.0f MiB"):format(bytes / 2^20)
end

-- Where several backends reach one card, which then has one UUID in all of them, `same_card_as` of the others becomes
-- the id of the first that can be used.
local function mark_cards(list)
  local first = {}
  for _, d in ipairs(list) do
    if d.uuid and not d.unavailable then first[d.uuid] = first[d.uuid] or d.id end
  end
  for _, d in ipairs(list) do
    local id = d.uuid and first[d.uuid]
    if id ~= d.id then d.same_card_as = id end
  end
end

-- `link` of each device that can be used and is of a kind that something may link; and these, each once.
local function mark_links(list)
  local links, known = {}, {}
  for _, d in ipairs(list) do
    if not d.unavailable and known[d.backend] == nil then
      known[d.backend] = core.find_link(d.backend) or false
      if known[d.backend] then links[#links + 1] = { of = d.backend, is = known[d.backend] } end
    end
    d.link = not d.unavailable and known[d.backend] or nil
  end
  return links
end

local function write_link(of, link)
  if link.missing then
    write(("\nno %s: %s; %s devices exchange gradients through the host\n"):format(link.library, link.missing, of))
  else
    write(("\n%s, %s: large gradients stay on %s devices\n"):format(link.library, link.file, of))
  end
end

--- @param list lavaflow.device[] as lf.devices(); gains `same_card_as` and `link`
--- @param json boolean?
function show.devices(list, json)
  mark_cards(list)
  local links = mark_links(list)
  if json then
    write(cjson.encode(list), "\n")
    return
  end
  local rows = { { "device", "name", "driver", "memory", "" } }
  for _, d in ipairs(list) do
    local driver = ("%s %s"):format(d.driver_name or "", d.driver_version or "")
    local note = d.unavailable and "unavailable: " .. d.unavailable or d.hardware_gpu and "GPU"
      or d.units > 0 and d.units .. " threads" or "software"
    if d.same_card_as then note = note .. ", same card as " .. d.same_card_as end
    rows[#rows + 1] = { d.id or d.backend, d.name or "", driver, d.memory > 0 and size(d.memory) or "", note }
  end
  tables.write_rows(rows, "")
  for _, link in ipairs(links) do write_link(link.of, link.is) end
end

local function line(label, text)
  if text and text ~= "" then write(("%-11s %s\n"):format(label, text)) end
end

local function show_parameters(run)
  local parts, values = {}, run:parameters()
  for _, name in ipairs(members(values)) do parts[#parts + 1] = ("%s = %s"):format(name, tables.text(values[name])) end
  line("parameters", table.concat(parts, ", "))
  line("overrides", run.entry.parameters and run.entry.parameters["@overrides"])
end

local TABLE_ROWS = 12

-- A training's values by epoch: the first ones, the last one, and of the rest as many as fit one screen.
local function show_epochs(run, training, names)
  local rows, series = { table.move(names, 1, #names, 2, { "epoch" }) }, {}
  for i, name in ipairs(names) do series[i] = run:series(training, name).value end
  local count = #series[1]
  local skip = math.max(1, math.ceil(count / TABLE_ROWS))
  for epoch = 1, count do
    if epoch == 1 or epoch == count or epoch % skip == 0 then
      local row = { tostring(epoch) }
      for _, values in ipairs(series) do row[#row + 1] = values[epoch] and number(values[epoch]) or "" end
      rows[#rows + 1] = row
    end
  end
  tables.write_rows(rows, "  ")
end

local function show_metrics(run, training)
  local names = {}
  for _, name in ipairs(runfile.epoch_series) do
    local series = run:series(training, name)
    if series and #series.value > 0 then names[#names + 1] = name end
  end
  write("\n", training, "\n")
  if #names > 0 then show_epochs(run, training, names) end
  local digests = run:digests(training)
  local digest = digests and digests.sha256[#digests.sha256]
  if digest then write("  weights sha256 ", digest, "\n") end
  for _, name in ipairs(run:metrics(training)) do
    if not runfile.of_training[name] then write(("  %s %s\n"):format(name, number(run:last(training, name)))) end
  end
end

-- The scores of an evaluation that are numbers.
local function show_scores(run, name)
  local parts, scores = {}, run.entry.evaluations[name]
  for _, key in ipairs(members(scores)) do
    local value = scores[key]
    if type(value) == "number" and key ~= "seconds" then parts[#parts + 1] = ("%s %s"):format(key, number(value)) end
  end
  write("\n", name, "  on ", scores["@data"] or "", "\n  ", table.concat(parts, ", "), "\n")
end

-- How a step went: "completed in 0.05 s on cpu". One that was not ended has the run's status.
local function outcome(run, step)
  if step.from_run then return ("%s, ran in run %s"):format(step.status or "up to date", step.from_run) end
  local seconds = step.t_end and step.t_start and (" in %.2f s"):format(step.t_end - step.t_start) or ""
  return (step.status or run:status()) .. seconds .. (step.device and " on " .. (step.devices or step.device) or "")
end

local function show_steps(run)
  for i, step in ipairs(run:steps()) do
    line(i == 1 and "steps" or "", ("%s  %s"):format(step.name, outcome(run, step)))
  end
end

-- "label text @sha256" lines of a group whose members name files.
local function show_files(label, group)
  for i, name in ipairs(members(group)) do
    local digest = group[name .. "@sha256"]
    line(i == 1 and label or "", group[name] .. (digest and "  sha256 " .. digest or ""))
  end
end

local function show_outputs(run)
  local label = "outputs"
  for _, step in ipairs(run:steps()) do
    for _, name in ipairs(members(step.outputs)) do
      line(label, step.outputs[name])
      label = ""
    end
  end
end

local complaints = { error = "error", warn = "warn", err = "stderr" }

local function show_complaints(run)
  local log = run:log()
  for i, text in ipairs(log.text) do line(complaints[log.level[i]], complaints[log.level[i]] and text) end
end

local function show_head(run)
  local entry = run.entry
  line("run", run.file)
  line("workflow", entry["script@file_name"])
  line("status", run:status() .. (entry.exit_code and ", exit status " .. entry.exit_code or ""))
  line("time", tostring(entry.start_time) .. (entry.end_time and " to " .. entry.end_time or ""))
  line("program", ("%s %s"):format(entry.program_name, entry["program_name@version"] or ""))
  local system = entry.system or {}
  line("host", system.host and ("%s, %s"):format(system.host, system.os))
  for _, key in ipairs(members(system)) do
    local device = key:find "^device_" and system[key]
    if device then line("device", ("%s: %s (%s %s)"):format(device.id, device.name, device.driver_name or "",
      device.driver_version or "")) end
  end
end

--- Prints a summary of a run file. Raises when it is none.
--- @param file string
function show.run(file)
  local run = runfile.open(file)
  show_head(run)
  show_parameters(run)
  show_files("inputs", run.entry.inputs)
  show_steps(run)
  show_outputs(run)
  show_complaints(run)
  for _, training in ipairs(run:trainings()) do show_metrics(run, training) end
  for _, name in ipairs(run:evaluations()) do show_scores(run, name) end
end

return show
