-- A run that goes on, as its live file shows it, until it has ended.
local uv = require "luv"
local files = require "lavaflow.files"
local runfile = require "lavaflow.runfile"

local follow = {}

local PAUSE = 200 -- milliseconds between two looks

-- The final and the live file of a name that may be either's.
local function names_of(file)
  local final = runfile.final_name(file) or file
  return final, runfile.live_name(final)
end

-- What is there of the run: its live file, or the final one; before anything is known of the run, that of a run that
-- goes on comes before another run's file of the same name.
local function look(final, live, uuid)
  local message
  for _, name in ipairs { live, final } do
    if files.is_file(name) then
      local run, why = runfile.read(name)
      local wanted = run and (not uuid or run:uuid() == uuid)
      local stale = wanted and not uuid and run.live and files.is_file(final) and run:goes_on() == false
      if wanted and not stale then return run end
      message = message or why
    end
  end
  return nil, message
end

--- Calls `each` with the run as it is now, and again and again until it has ended; raises when it was killed.
--- @param file string run file or live file
--- @param each fun(run: lavaflow.runfile)
--- @return lavaflow.runfile # the final one
function follow.run(file, each)
  local final, live = names_of(file)
  local run, message = look(final, live)
  if not run then error(message or final .. ": no such file, and no live file beside it", 0) end
  local uuid = run:uuid()
  while run.live do
    local killed = run:goes_on() == false
    if killed then -- it may have ended since it was read
      run = look(final, live, uuid) or run
      if not run.live then break end
    end
    each(run)
    if killed then
      error(("%s: its run was killed; lavaflow recover makes a run file of it"):format(live), 0)
    end
    uv.sleep(PAUSE)
    run = look(final, live, uuid)
    if not run then error(live .. ": is gone, and there is no run file in its place", 0) end
  end
  each(run)
  return run
end

return follow
