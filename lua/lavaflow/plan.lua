-- Which steps must run, and why: what a step depends on now against what its last run depended on and gave.
local digests = require "lavaflow.digests"
local facts = require "lavaflow.facts"
local files = require "lavaflow.files"
local options = require "lavaflow.options"
local state = require "lavaflow.state"
local workflow = require "lavaflow.workflow"

local plan = {}

--- @class lavaflow.plan
--- @field flow lavaflow.workflow
--- @field order lavaflow.step[]
--- @field places table<lavaflow.step, lavaflow.place>
local Plan = {}
Plan.__index = Plan

--- @param flow lavaflow.workflow
--- @param order lavaflow.step[] the selected steps
--- @param given { root: string?, fresh: boolean?, force: string[]? }
--- @return lavaflow.plan? # nil and a message: no such step to force
--- @return string? message
function plan.create(flow, order, given)
  local self = setmetatable({ flow = flow, order = order, root = given.root, fresh = given.fresh, forced = {},
    places = {},
    digests = digests.open(state.digests_path(given.root)) }, Plan)
  for _, name in ipairs(given.force or {}) do
    if not flow.by_name[name] then return nil, workflow.no_step(flow, name) end
    self.forced[flow.by_name[name]] = true
  end
  for _, step in ipairs(order) do self.places[step] = state.place(flow, step, given.root) end
  return self
end

-- What became of the outputs since the run that wrote them.
local function compare_outputs(self, lines, step, written)
  for _, name in ipairs(options.names(step.output)) do
    local path, before = step.output[name], written[name]
    local sha256 = files.is_file(path) and self.digests:of(path)
    if not sha256 then
      lines[#lines + 1] = ("output %s: %s: is missing"):format(name, path)
    elseif not before or before.sha256 ~= sha256 then
      lines[#lines + 1] = ("output %s: %s: was changed since: content %s -> %s"):format(name, path,
        before and before.sha256:sub(1, 12) or "nothing", sha256:sub(1, 12))
    end
  end
end

-- Why a step that has not run with these outputs or parameters has to.
local function compare_sibling(place, found)
  local sibling = place:sibling()
  local lines = sibling and facts.compare(sibling.facts, found) or {}
  return #lines > 0 and lines or { "has not run yet" }
end

--- @class lavaflow.decision
--- @field reasons string[] why it runs; none: it is up to date
--- @field facts lavaflow.facts
--- @field done table? of its place
--- @field attempt table? an interrupted run that it goes on with
--- @field forced boolean? it runs whatever has changed

--- Decides on a step whose inputs are there.
--- @param step lavaflow.step
--- @param device string? what it will run on
--- @return lavaflow.decision? # nil and a message: an input cannot be read
--- @return string? message
function Plan:decide(step, device)
  local found, message = facts.gather(self.flow, step, self.digests, device)
  if not found then return nil, message end
  local place = self.places[step]
  local done, attempt, reasons = place:done(), place:attempt(), {}
  local forced = self.fresh or self.forced[step]
  if forced then
    reasons[1] = self.fresh and "--fresh" or "forced"
  elseif attempt and attempt.forced then
    reasons[1] = "was forced, and interrupted"
  elseif done then
    reasons = facts.compare(done.facts, found)
    compare_outputs(self, reasons, step, done.outputs)
  else
    reasons = compare_sibling(place, found)
  end
  -- What the code required while it ran is known when its process could say so.
  local goes_on = #reasons > 0 and attempt and not forced
    and files.is_file(place:path "attempt.journal") and #facts.compare(attempt.facts, found) == 0
    and (not found.requires or attempt.modules_known)
  return { reasons = reasons, facts = found, done = done, attempt = goes_on and attempt or nil,
    forced = forced or (goes_on and attempt.forced) or nil }
end

--- @class lavaflow.outlook
--- @field step lavaflow.step
--- @field status "up to date"|"runs"|"goes on"|"waits"
--- @field reasons string[]
--- @field done table?

-- A step after one that runs: whether it runs depends on what that one gives.
local function waits_for(self, step, runs)
  for _, other in ipairs(workflow.dependencies(self.flow, step)) do
    if runs[other] then return other end
  end
end

--- What would happen, step by step, without running anything.
--- @param device_of fun(step: lavaflow.step): string? what a step would run on
--- @return lavaflow.outlook[]? # nil and a message
--- @return string? message
function Plan:outlook(device_of)
  local list, runs = {}, {}
  for _, step in ipairs(self.order) do
    local before = waits_for(self, step, runs)
    local entry = { step = step, done = self.places[step]:done() }
    if before then
      entry.status, entry.reasons = "waits", { ("after step %s, if what it reads of it changes"):format(before.name) }
    else
      local decision, message = self:decide(step, device_of(step))
      if not decision then return nil, ('step "%s": %s'):format(step.name, message) end
      entry.reasons = decision.reasons
      entry.status = #entry.reasons == 0 and "up to date" or decision.attempt and "goes on" or "runs"
    end
    runs[step] = entry.status ~= "up to date"
    list[#list + 1] = entry
  end
  return list
end

return plan
