-- `lavaflow plot`: metrics of runs as one picture, drawn by gnuplot.
local uv = require "luv"
local progress = require "lavaflow.progress"
local runfile = require "lavaflow.runfile"
local tables = require "lavaflow.tables"

local plot = {}

-- gnuplot's terminals by the picture's extension. Sizes: a panel's width and height, a legend's line, in its unit.
local terminals = {
  svg = { "svg size %d,%d background 'white' font 'sans,12' linewidth 1.5 noenhanced", 720, 440, 19 },
  png = { "pngcairo size %d,%d font 'sans,10' linewidth 1.5 noenhanced", 720, 440, 18 },
  pdf = { "pdfcairo size %.1f,%.1f font 'sans,10' linewidth 1.5 noenhanced", 7.2, 4.4, 0.19 },
}

local colours = { "#1f77b4", "#d62728", "#2ca02c", "#ff7f0e", "#9467bd", "#17becf", "#8c564b", "#e377c2", "#bcbd22",
  "#000000", "#7f7f7f", "#00429d" }

local function quoted(text) return '"' .. text:gsub('[\\"]', "\\%0"):gsub("%c", " ") .. '"' end

local function is_finite(value) return value - value == 0 end

-- Adds a line to the panel that it shares with others of its metric, validation or not; nothing where no value can be
-- drawn.
local function add_curve(panels, run, training, metric, line)
  local series, points, some = run:series(training, metric), {}, false
  for i, value in ipairs(series and series.value or points) do
    points[i] = is_finite(value) and ("%d %.9g"):format(series.step[i], value) or "" -- an empty line breaks the curve
    some = some or is_finite(value)
  end
  if not some then return end
  if not line.colour then
    panels.colours = panels.colours + 1
    line.colour = colours[(panels.colours - 1) % #colours + 1]
  end
  local name = metric:gsub("^val_", "")
  local panel = panels[name] or { name = name, curves = {}, metrics = {}, positive = true }
  if not panels[name] then panels[name], panels[#panels + 1] = panel, panel end
  for _, value in ipairs(series.value) do panel.positive = panel.positive and (value > 0 or value ~= value) end
  if not panel.metrics[metric] then panel.metrics[metric], panel.metrics[#panel.metrics + 1] = true, metric end
  table.insert(panel.curves, { points = points, metric = metric, line = line })
end

-- The metrics to draw of a training: those asked for, or losses and accuracies, or its own that have a course.
local function metrics_of(run, training, wanted)
  local list = {}
  for _, metric in ipairs(wanted) do
    local of, name = runfile.split_metric(metric)
    if not of or of == training then list[#list + 1] = name end
  end
  if #wanted > 0 then return list end
  for _, name in ipairs(runfile.epoch_series) do
    if name ~= "lr" and run:series(training, name) then list[#list + 1] = name end
  end
  if #list > 0 then return list end
  for _, name in ipairs(run:metrics(training)) do
    if #run:series(training, name).value > 1 then list[#list + 1] = name end
  end
  return list
end

-- The panels of a picture, in the order in which their metrics were first met. Every training of every run has a line
-- in the legends and a colour.
local function panels_of(runs, wanted)
  local panels, differing = { colours = 0 }, runfile.differing(runs)
  for _, run in ipairs(runs) do
    for _, training in ipairs(run:trainings()) do
      local line = { label = (#runs > 1 and runfile.label(run, differing) .. "  " or "") .. training }
      for _, metric in ipairs(metrics_of(run, training, wanted)) do add_curve(panels, run, training, metric, line) end
    end
  end
  return panels
end

local function is_dashed(panel, curve) return #panel.metrics > 1 and curve.metric ~= panel.name end

-- "loss, dashed: val_loss"
local function title_of(panel, how)
  if how.dumb or #panel.metrics == 1 then return table.concat(panel.metrics, ", ") end
  return ("%s, dashed: val_%s"):format(panel.name, panel.name)
end

-- A curve of one point would not be seen without it.
local function curve_script(panel, curve, how, told)
  local label = curve.line.label
  if how.dumb and #panel.metrics > 1 then label = label .. "  " .. curve.metric end
  local title = told[label] and "notitle" or "title " .. quoted(label)
  told[label] = true
  local colour = how.dumb and "" or (" linecolor rgb '%s' dashtype %d"):format(curve.line.colour,
    is_dashed(panel, curve) and 2 or 1)
  return ("'-' using 1:2 with %s%s %s"):format(#curve.points == 1 and "points pointtype 7" or "lines", colour, title)
end

local function panel_script(panel, how, lines)
  local plots, told = {}, {}
  for i, curve in ipairs(panel.curves) do plots[i] = curve_script(panel, curve, how, told) end
  local log = how.log and panel.positive and runfile.is_loss(panel.name)
  lines[#lines + 1] = log and "set logscale y" or "unset logscale y"
  lines[#lines + 1] = (how.dumb and "set title " or "set ylabel ") .. quoted(title_of(panel, how))
  lines[#lines + 1] = "plot " .. table.concat(plots, ", ")
  for _, curve in ipairs(panel.curves) do lines[#lines + 1] = table.concat(curve.points, "\n") .. "\ne" end
end

-- The picture as high as its longest legends ask for.
local function size_of(panels, kind, columns, rows)
  local longest = 0
  for _, panel in ipairs(panels) do
    local labels, count = {}, 0
    for _, curve in ipairs(panel.curves) do
      count = count + (labels[curve.line.label] and 0 or 1)
      labels[curve.line.label] = true
    end
    longest = math.max(longest, count)
  end
  return columns * kind[2], rows * (kind[3] + longest * kind[4])
end

local function script_of(panels, how)
  local lines = {}
  local function add(line) lines[#lines + 1] = line end
  add "set encoding utf8"
  if how.dumb then
    add(("set terminal dumb noenhanced size %d,22"):format(how.columns))
    add "set key outside below left Left reverse samplen 2"
    add "set tics nomirror scale 0.5"
  else
    local columns, kind = math.min(#panels, 2), terminals[how.format]
    local rows = math.ceil(#panels / columns)
    add("set terminal " .. kind[1]:format(size_of(panels, kind, columns, rows)))
    add "set key outside above left Left reverse samplen 2 maxcols 1"
    add "set autoscale yfix"
    add "set offsets 0, 0, graph 0.03, graph 0.03"
    add "set grid linetype 1 linewidth 0.5 linecolor rgb '#d8d8d8'"
    add(("set multiplot layout %d,%d"):format(rows, columns))
  end
  add "set xlabel 'training step'"
  for _, panel in ipairs(panels) do panel_script(panel, how, lines) end
  if not how.dumb then add "unset multiplot" end
  return table.concat(lines, "\n") .. "\n"
end

local function collect(pipe, pieces)
  pipe:read_start(function(_, piece)
    if piece then pieces[#pieces + 1] = piece else pipe:close() end
  end)
end

-- What gnuplot makes of a script; raises with what it says.
local function gnuplot(script)
  local input, output, errors = uv.new_pipe(), uv.new_pipe(), uv.new_pipe()
  local made, said, code = {}, {}, nil
  local handle, why
  handle, why = uv.spawn("gnuplot", { args = { "-" }, stdio = { input, output, errors } }, function(exit_code)
    code = exit_code
    handle:close()
  end)
  if not handle then
    for _, pipe in ipairs { input, output, errors } do pipe:close() end
    uv.run()
    if why:find "^ENOENT" then
      error("gnuplot is not installed: it draws the plots; its package is gnuplot-nox in Debian and Ubuntu", 0)
    end
    error("gnuplot: cannot be started: " .. why, 0)
  end
  collect(output, made)
  collect(errors, said)
  input:write(script, function() input:close() end)
  uv.run()
  local message = table.concat(said)
  if code ~= 0 then error("gnuplot: " .. (message:match "([^\n]+)\n*$" or "exit status " .. code), 0) end
  return table.concat(made)
end

local function format_of(output)
  local format = output:match "%.(%w+)$"
  if not terminals[(format or ""):lower()] then
    runfile.misuse("-o %s: expected a name that ends in .svg, .png or .pdf", output)
  end
  return format:lower()
end

--- @param given { run: string[], output: string?, metric: string[], log: boolean? }
--- @return integer exit status
function plot.draw(given)
  local how = { log = given.log, dumb = not given.output, format = given.output and format_of(given.output),
    columns = math.min(progress.create({}).columns or 80, 120) - 1 }
  local runs = {}
  for i, file in ipairs(given.run) do
    runs[i] = runfile.open(file)
    if given.output then runs[i]:protect(given.output) end
  end
  local panels = panels_of(runs, given.metric)
  if #panels == 0 then
    local names = table.concat(given.run, ", ")
    if #given.metric > 0 then
      runfile.misuse("--metric %s: no such metric in %s", table.concat(given.metric, ","), names)
    end
    error(names .. ": there is no training to draw; --metric names other metrics", 0)
  end
  local picture = gnuplot(script_of(panels, how))
  if not given.output then
    tables.write((picture:gsub("\f", ""):gsub(" +\n", "\n"):gsub("^\n+", "")))
    return 0
  end
  runfile.write(given.output, picture)
  return 0
end

return plot
