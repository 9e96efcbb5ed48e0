-- `lavaflow recover`: a run file of what a killed run has left.
local core = require "lavaflow.core"
local files = require "lavaflow.files"
local runfile = require "lavaflow.runfile"
local tables = require "lavaflow.tables"

local recover = {}

local KILLED = 137 -- exit status of a process that SIGKILL ended

-- The lock of the run whose live file it is, so that nobody else takes it; false where the file names none that is
-- there.
local function take_lock(run)
  local path = run.entry["@lock"]
  if type(path) ~= "string" or not files.is_file(path) then return false end
  local lock, holder = core.lock(path)
  if not lock then error(("%s: its run goes on (%s)"):format(run.file, (holder:gsub("%s+$", ""))), 0) end
  return lock
end

local function recover_locked(live, output, given)
  if not given.output and files.is_file(output) then
    error(("%s: is there already; -o names another file"):format(output), 0)
  end
  core.run_recover(live, output, "killed", KILLED)
  files.remove(live)
  files.remove_temporary(live)
end

--- @param given { file: string, output: string? }
--- @return integer exit status
function recover.run(given)
  local live = given.file
  local output = given.output or runfile.final_name(live)
  if not output then runfile.misuse("%s: expected a live file, NAME.live.h5, or -o", live) end
  local run, message = runfile.read(live)
  if not run then error(message, 0) end
  if run.entry.end_time then error(live .. ": its run has ended: there is nothing to recover", 0) end
  run:protect(output)
  local lock = take_lock(run)
  local ok, failure = pcall(recover_locked, live, output, given)
  if lock then lock:close() end
  if not ok then error(failure, 0) end
  tables.write(output, "\n")
  return 0
end

return recover
