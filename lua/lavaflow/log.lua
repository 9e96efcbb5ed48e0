-- `lavaflow log`: what a run has told, line by line.
local follow = require "lavaflow.follow"
local runfile = require "lavaflow.runfile"
local tables = require "lavaflow.tables"

local log = {}

-- A step that the run does not have is a mistake; in a run that goes on it may come yet.
local function check_step(run, step)
  local names = {}
  for i, one in ipairs(run:steps()) do
    if one.name == step then return end
    names[i] = one.name
  end
  if not run.live then
    runfile.misuse('%s: has no step "%s"; it has %s', run.file, step, table.concat(names, ", "))
  end
end

-- Prints the lines after the first `from`; gives how many there are.
local function print_lines(run, step, from)
  local lines, width = run:log(), 0
  if step and not lines.step then
    error(run.file .. ": its log does not say which step told a line; leave the step out", 0)
  end
  for _, one in ipairs(run:steps()) do width = math.max(width, tables.width(one.name)) end
  for i = from + 1, #lines.text do
    local whose = lines.step and lines.step[i] or ""
    if not step or whose == step then
      local column = lines.step and not step and whose .. (" "):rep(width - tables.width(whose)) .. "  " or ""
      local head = ("%10.3f  %-5s  %s"):format(lines.time[i], lines.level[i], column)
      local indent = "\n" .. (" "):rep(tables.width(head))
      tables.write(head, (lines.text[i]:gsub("\n+$", ""):gsub("\n", indent)), "\n")
    end
  end
  return #lines.text
end

--- @param given { run: string, step: string?, follow: boolean? }
--- @return integer exit status
function log.print(given)
  local printed = 0
  local function print_new(run)
    if given.step then check_step(run, given.step) end
    printed = print_lines(run, given.step, printed)
    tables.flush()
  end
  if given.follow then follow.run(given.run, print_new) else print_new(runfile.open(given.run)) end
  return 0
end

return log
