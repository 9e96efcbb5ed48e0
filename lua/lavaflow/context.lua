-- What the caller of a training, an evaluation or a prediction binds in: lf.train and s:train are one function that
-- differs in this.
local core = require "lavaflow.core"
local files = require "lavaflow.files"
local options = require "lavaflow.options"
local progress = require "lavaflow.progress"
local ranks = require "lavaflow.ranks"
local rules = require "lavaflow.rules"

local context = {}

--- @class lavaflow.context
--- @field devices? string[] of trainings that name none, instead of "auto"; "all" stands for these
--- @field shards? table<string, integer> of trainings that name no number, by training
--- @field name? string of the training or evaluation in metrics and progress
--- @field record? lavaflow.results what is done is recorded there
--- @field reporter? lavaflow.reporter tells how it goes
--- @field input? table<string, string> of the step: files that are not to be replaced
--- @field run_file? string where the record will be saved
--- @field checkpoints? { folder: string, seconds: number, steps: integer?, keep: integer? } of trainings that name none
--- @field earlier? userdata a run: what earlier processes of the step have recorded
--- @field marks? table<string, table> what the step had told when a checkpoint was written, by "TRAINING STEP"
--- @field saving? fun(training: string, step: integer) a checkpoint is about to be written
--- @field resumed? fun(training: string, step: integer) a training goes on from one; 0: it starts
--- @field scratch? boolean checkpoints and the like that the script names are neither read nor written
--- @field segment? lavaflow.segment the only stretch to run

--- A stretch of a training.
--- @class lavaflow.segment
--- @field training string its name
--- @field resume? string checkpoint that it begins at; the training's start
--- @field stop? integer training step that it ends at; the training's end
--- @field checkpoint string written at its end

--- What a segment's end raises.
context.segment_done = {}

--- Turns `device` or `devices` into the list of devices to use.
--- @param where string the function's name in messages
--- @param t table its options; gets `devices`, loses `device`
--- @param bound lavaflow.context
function context.choose_devices(where, t, bound)
  if t.device and t.devices then
    options.fail("%s: devices: expected either device or devices, got device = %s and devices = %s", where,
      options.show(t.device), options.show(t.devices))
  end
  if t.device == rules.ALL then
    options.fail('%s: device: expected one device, got "all"; devices = "all" stands for all of them', where)
  end
  if t.device then
    t.devices = { t.device }
  elseif t.devices == rules.ALL then
    t.devices = bound.devices or { rules.ALL }
  else
    t.devices = t.devices or bound.devices or { rules.AUTO }
  end
  t.devices = ranks.devices(t.devices)
  t.device = nil
end

--- The same for what runs on one device: the first of the list.
function context.choose_device(where, t, bound)
  context.choose_devices(where, t, bound)
  t.device = t.devices[1] == rules.ALL and rules.AUTO or t.devices[1]
  t.devices = nil
end

--- Passes on what the plugin had to say since the last call.
--- @param bound lavaflow.context
function context.drain_log(bound)
  for _, line in ipairs(core.log_lines()) do
    if bound.record then bound.record:log(line.level, line.text) end
    local reporter = bound.reporter or progress.silent
    reporter:log(line.level, line.text)
  end
end

-- What is read: lists of what it is and the file.
local function read_files(t, bound)
  local reads = {}
  for _, name in ipairs { "data", "validation" } do
    if t[name] then reads[#reads + 1] = { "the file of " .. name, files.split_object(t[name].path) } end
  end
  if t.resume and t.resume ~= t.checkpoint then reads[#reads + 1] = { "the checkpoint to resume", t.resume } end
  for _, name in ipairs(options.names(bound.input or {})) do
    reads[#reads + 1] = { "input " .. name, files.split_object(bound.input[name]) }
  end
  return reads
end

-- The path must replace none of those in `others`, lists of what it is and its path.
local function check_apart(where, name, path, others, format)
  for _, other in ipairs(others) do
    if other[2] and files.same(other[2], path) then
      options.fail("%s: %s: %s " .. format, where, name, path, other[1])
    end
  end
end

--- Finds out before the work, not after it, whether its files can be written, and that none replaces what is read or
--- another of them.
--- @param where string
--- @param t table the options
--- @param bound lavaflow.context
--- @param outputs table[] of an option's name and its path, which may be absent
function context.check_outputs(where, t, bound, outputs)
  local reads, written = read_files(t, bound), { { "the run file", bound.run_file } }
  for _, output in ipairs(outputs) do
    local name, path = output[1], output[2]
    if path then
      check_apart(where, name, path, reads, "would replace %s")
      check_apart(where, name, path, written, "is the path of %s too")
      written[#written + 1] = output
      local ok, message = files.prepare_output(path, false)
      if not ok then options.fail("%s: %s: %s", where, name, message) end
    end
  end
end

return context
