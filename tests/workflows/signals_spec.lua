-- Ctrl-C and SIGTERM: message, exit status, run file, and nothing else left behind.
local core = require "lavaflow.core"
local helper = require "helper"

local folder
before_each(function()
  folder = helper.folder()
  helper.fixtures(folder)
  helper.write(folder .. "/flow.lua", [[
local lf = require "lavaflow"
local P = lf.params { checkpoint = "", resume = "", epochs = 100000000, spin = false }
lf.step "train" {
  input = { data = "good.h5" }, output = { model = "out/model.h5" },
  run = function(s)
    local model = lf.mlp { 4, 8, 3, seed = 1 }
    model:save(s.output.model)
    while P.spin do s:metric("turns", 1) end
    local function path(value) return value ~= "" and value or nil end
    s:train { model = model, data = lf.dataset(s.input.data).train, epochs = P.epochs, batch = 8, device = "cpu",
              checkpoint = path(P.checkpoint), resume = path(P.resume) }
    model:save(s.output.model)
  end,
}
]])
end)
after_each(function() helper.remove(folder) end)

-- Sends the signal once the output shows that the step is at work.
local function interrupted(signal, marker, ...)
  local sent
  return helper.run({ helper.lavaflow, "run", "flow.lua", "--record", "run.h5", ... }, {
    cwd = folder,
    on_output = function(text, process)
      if not sent and text:find(marker) then
        sent = true
        process:kill(signal)
      end
    end,
  })
end

local function entry()
  return core.h5_read(folder .. "/run.h5", "/entry", 1000)
end

describe("a signal", function()
  for _, signal in ipairs { "sigint", "sigterm", "sigusr1" } do
    it(signal .. "_in_a_training_leaves_a_checkpoint_and_no_output", function()
      local result = interrupted(signal, "epoch 3/")
      helper.has(result.err, signal:upper() .. ": stopping after a checkpoint; once more stops at once")
      helper.has(result.err, "/train.checkpoint.h5 is written, to go on from: interrupted at step")
      assert.same({ 75, 0 }, { result.code, result.signal })
      assert.equal("interrupted", entry().status)
      assert.equal("interrupted", entry().step_1.status)
      assert.equal(75, entry().exit_code)
      assert.is_false(helper.exists(folder .. "/out"))
    end)
  end

  it("after_a_checkpoint_is_status_75_and_the_training_can_go_on", function()
    local result = interrupted("sigterm", "epoch 3/", "checkpoint=c.h5")
    helper.has(result.err, "c.h5 is written, to go on from")
    assert.equal(75, result.code)
    assert.equal(75, entry().exit_code)
    local done = entry().metrics.train.loss.value
    local epochs = (#done > 0 and #done or done.shape[1]) + 3
    local function finish(...)
      local run = helper.cli(folder, "run", "flow.lua", "-q", "--record", "run.h5", "epochs=" .. epochs, ...)
      assert.same({ 0, "" }, { run.code, run.err })
      return core.h5_digest(folder .. "/out/model.h5", "/model")
    end
    local resumed = finish "resume=c.h5"
    assert.equal(finish(), resumed)
  end)

  it("in_a_step_that_does_not_train_ends_it", function()
    local result = interrupted("sigint", "turns", "spin=true")
    helper.has(result.err, 'step "train": interrupted by SIG')
    assert.equal(75, result.code)
    assert.equal("interrupted", entry().status)
    assert.is_false(helper.exists(folder .. "/out"))
  end)
end)
