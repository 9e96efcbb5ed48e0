-- What the tests of the commands that read run files share: three runs of a small workflow in a folder.
local uv = require "luv"
local helper = require "helper"

local reading = {}

reading.script = [[
local lf = require "lavaflow"
local P = lf.params { data = "good.h5", lr = 1e-2, epochs = 3, note = "same" }
local train = lf.step "train" {
  input = { data = P.data }, output = { model = "out/model.h5" }, params = P,
  run = function(s)
    local data, model = lf.dataset(s.input.data), lf.mlp { 4, 8, 3 }
    local function train(epochs, name)
      s:train { model = model, data = data.train, validation = data.test, epochs = epochs, batch = 8, name = name,
                optimizer = lf.adam { lr = s.params.lr } }
    end
    train(s.params.epochs)
    train(2, "teacher")
    print "one\ntwo"
    model:save(s.output.model)
  end,
}
lf.step "evaluate" {
  input = { data = P.data .. ":/test/x", model = train.output.model },
  run = function(s)
    local scores = s:evaluate { model = lf.load(s.input.model), data = lf.dataset(P.data).test }
    s:metric("test_loss", scores.loss)
  end,
}
]]

--- Runs the workflow into a run file of this name.
function reading.run(name, ...)
  reading.output("run", "flow.lua", "--device", "cpu", "-q", "--fresh", "--record", name, ...)
end

function reading.setup()
  local folder = helper.folder()
  reading.folder = folder
  helper.fixtures(folder)
  helper.write(folder .. "/flow.lua", reading.script)
  for _, name in ipairs { "runs", "runs/flow", "other" } do assert(uv.fs_mkdir(folder .. "/" .. name, 511)) end
  reading.run("runs/flow/a.h5")
  reading.run("runs/flow/b.h5", "lr=0.02")
  reading.run("runs/flow/c.h5", "lr=0.002")
  return folder
end

function reading.teardown() helper.remove(reading.folder) end

--- Runs the command line in the folder.
function reading.lavaflow(...) return helper.cli(reading.folder, ...) end

--- What a command that succeeds prints.
function reading.output(...)
  local result = reading.lavaflow(...)
  if result.code ~= 0 or result.err ~= "" then error(("exit status %d: %s"):format(result.code, result.err), 2) end
  return result.out
end

--- Fails unless a command fails with this exit status and message.
function reading.refused(code, part, ...)
  local result = reading.lavaflow(...)
  helper.has(result.err, "lavaflow: ")
  helper.has(result.err, part)
  if result.code ~= code then error(("expected exit status %d, got %d"):format(code, result.code), 2) end
  return result
end

function reading.lines(text)
  local lines = {}
  for line in text:gmatch "([^\n]*)\n" do lines[#lines + 1] = line end
  return lines
end

return reading
