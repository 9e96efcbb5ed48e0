-- What is remembered of the steps between runs, in the folder .lavaflow: of each step a folder with what its last run
-- depended on and gave, its journal, and what an interrupted run left to go on from. A step is known by its workflow,
-- its name and its outputs; one without outputs by its inputs and parameters, so that runs of one script that differ in
-- these do not disturb each other.
--
--   lock             held by the run that uses the step, and by its process
--   done.json        facts, outputs and their digests, of the last run that completed; names its journal
--   done-<key>.journal
--   kept-<training>.checkpoint-<step>.h5  its checkpoints that were to be kept
--   attempt.json     facts of a run that has not completed, and its run file
--   attempt.journal  its metrics and log
--   <training>.checkpoint.h5
local cjson = require "cjson"
local core = require "lavaflow.core"
local facts = require "lavaflow.facts"
local files = require "lavaflow.files"
local options = require "lavaflow.options"

local state = {}

local ROOT = ".lavaflow"

-- A JSON file of ours; nil when it is absent or damaged: then it is as if the step had not run.
local function read_json(path)
  local text = files.is_file(path) and files.read(path)
  local ok, value = pcall(cjson.decode, text or "")
  return ok and type(value) == "table" and value or nil
end

local function write_json(path, value)
  local ok, message = files.replace(path, cjson.encode(value))
  if not ok then error(message, 0) end
end

--- What is remembered of one step.
--- @class lavaflow.place
--- @field folder string
--- @field lock userdata?
local Place = {}
Place.__index = Place

-- The name of a step's folder, of its own and no other's.
local function identity(flow, step)
  local parts = { files.normal(flow.path), step.name }
  local function add(kind, values, text)
    for _, name in ipairs(options.names(values)) do
      parts[#parts + 1] = ("%s %s = %s"):format(kind, name, text(values[name]))
    end
  end
  add("output", step.output, files.normal)
  if not next(step.output) then
    add("input", step.input, files.normal)
    add("parameter", step.params, facts.exact)
  end
  return core.sha256(table.concat(parts, "\n")):sub(1, 8)
end

-- The folder of a workflow's steps and runs.
local function flow_folder(flow, root) return ("%s/%s"):format(root or ROOT, flow.name) end

--- @param flow lavaflow.workflow
--- @param step lavaflow.step
--- @param root string? instead of .lavaflow
--- @return lavaflow.place
function state.place(flow, step, root)
  local folder = ("%s/%s-%s"):format(flow_folder(flow, root), step.name, identity(flow, step))
  return setmetatable({ folder = folder, name = step.name }, Place)
end

--- A run that goes on, or was killed.
--- @class lavaflow.registration
--- @field path string its lock
--- @field info { uuid: string, run_file: string, live: string, places: string[], params: string }
local Registration = {}
Registration.__index = Registration

function Registration:close()
  local about = self.path:gsub("%.lock$", ".json")
  files.remove(about)
  files.remove(about .. ".tmp") -- of one that was killed as it began
  files.remove(self.path)
  self.lock:close()
end

--- Notes that a run has begun, so that a later one finds what it leaves if it is killed.
--- @param plan lavaflow.plan
--- @param info { uuid: string, run_file: string, live: string }
--- @return lavaflow.registration
function state.register(plan, info)
  local folder = flow_folder(plan.flow, plan.root)
  local self = setmetatable({ path = ("%s/run-%s.lock"):format(folder, info.uuid:sub(1, 8)), info = info },
    Registration)
  info.params, info.places = facts.exact(plan.flow.params), {}
  for _, place in pairs(plan.places) do info.places[#info.places + 1] = place.folder end
  local ok, message = files.make_folder(folder)
  if not ok then error(message, 0) end
  self.lock = assert(core.lock(self.path))
  write_json(self.path:gsub("%.lock$", ".json"), info)
  return self
end

--- The runs of a workflow that were killed. Close each that is dealt with.
--- @return lavaflow.registration[]
function state.killed(flow, root)
  local list, folder = {}, flow_folder(flow, root)
  for _, name in ipairs(files.list(folder)) do
    local path = folder .. "/" .. name
    local lock = name:find "^run%-%x+%.lock$" and core.lock(path)
    if lock then
      local info = read_json((path:gsub("%.lock$", ".json")))
      local one = setmetatable({ path = path, lock = lock, info = info }, Registration)
      if info and info.places then list[#list + 1] = one else one:close() end
    end
  end
  return list
end

--- Where digests of files are remembered.
function state.digests_path(root) return (root or ROOT) .. "/digests.json" end

--- Makes the folder that all is in, with what keeps it out of version control.
--- @return true? ok
--- @return string? message
function state.prepare(root)
  root = root or ROOT
  local ok, message = files.make_folder(root)
  if not ok then return nil, message end
  local ignore = root .. "/.gitignore"
  if not files.is_file(ignore) then return files.replace(ignore, "*\n") end
  return true
end

function Place:path(name) return self.folder .. "/" .. name end

--- Locks the step for this process and the children that get the lock's descriptor. False and the holder's line when
--- another run has it; raises when it cannot be locked.
function Place:acquire()
  local ok, message = files.make_folder(self.folder)
  if not ok then error(message, 0) end
  local lock, holder = core.lock(self:path "lock")
  self.lock = lock
  return lock ~= nil, holder
end

function Place:release()
  if self.lock then self.lock:close() end
  self.lock = nil
end

--- What the last run that completed depended on and gave.
--- @return { facts: lavaflow.facts, outputs: table<string, { path: string, sha256: string }>, journal: string,
---   run: string, run_file: string, seconds: number, at: string, checkpoints: string[], late_modules: table[] }?
function Place:done()
  local done = read_json(self:path "done.json")
  local sound = done and facts.valid(done.facts) and type(done.outputs) == "table" and type(done.seconds) == "number"
  for _, name in ipairs { "journal", "run", "run_file", "at" } do sound = sound and type(done[name]) == "string" end
  return sound and files.is_file(self:path(done.journal)) and done or nil
end

--- A run that has not completed.
--- @return { facts: lavaflow.facts, forced: boolean?, modules_known: boolean? }?
function Place:attempt()
  local attempt = read_json(self:path "attempt.json")
  return attempt and facts.valid(attempt.facts) and attempt or nil
end

function Place:write_attempt(attempt) write_json(self:path "attempt.json", attempt) end

-- Removes what is not named.
local function clean(self, keep)
  for _, name in ipairs(files.list(self.folder)) do
    if not keep[name] then files.remove(self:path(name)) end
  end
end

-- The files of the last completed run.
local function of_done(done)
  local keep = { lock = true, ["done.json"] = true }
  if done then keep[done.journal] = true end
  for _, name in ipairs(done and done.checkpoints or {}) do keep[name] = true end
  return keep
end

--- Forgets the last completed run too.
function Place:drop_all() clean(self, { lock = true }) end

--- Forgets what an interrupted run left.
function Place:drop_attempt() clean(self, of_done(self:done())) end

--- The attempt has failed: it is kept when a training has left a checkpoint to go on from once the cause is gone.
function Place:fail()
  for _, name in ipairs(files.list(self.folder)) do
    if name:find "%.h5$" and not name:find "^kept%-" then return end
  end
  self:drop_attempt()
end

--- The attempt has completed: `done` gets its journal's name.
function Place:complete(done)
  local _, key = facts.keys(done.facts)
  done.journal = ("done-%s.journal"):format(key:sub(1, 16))
  -- A kill between the two finds done.json without its journal, and goes on with the attempt, which is at its end.
  write_json(self:path "done.json", done)
  local ok, message = os.rename(self:path "attempt.journal", self:path(done.journal))
  if not ok then error(message, 0) end
  clean(self, of_done(done))
end

--- The last completed run of a step of this name in another folder: what a step without outputs compares with when it
--- has not run with these parameters yet.
function Place:sibling()
  local best
  local parent = files.folder(self.folder)
  for _, name in ipairs(files.list(parent)) do
    if name:match "^(.*)%-%x+$" == self.name and parent .. "/" .. name ~= self.folder then
      local done = setmetatable({ folder = parent .. "/" .. name }, Place):done()
      if done and (not best or done.at > best.at) then best = done end
    end
  end
  return best
end

return state
