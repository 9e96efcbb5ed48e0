-- A training that goes on in another process: stopped in between, killed at any moment, to the same bits.
local core = require "lavaflow.core"
local helper = require "helper"
local uv = require "luv"

local device = os.getenv "LAVAFLOW_TEST_DEVICE"
local folder, script
setup(function()
  folder = helper.folder()
  script = helper.write(folder .. "/resume.lua", [[
local lf = require "lavaflow"
local P = lf.params { data = "", epochs = 2, stop = 0, every = 1000000, checkpoint = "c.h5" }
local teacher = lf.mlp { 64, 24, 10, seed = 7 }
lf.step "train" {
  input = { data = P.data },
  params = P,
  run = function(s)
    local data = lf.dataset(s.input.data)
    local model = lf.sequential {
      lf.dropout(0.2), lf.linear(64, 32), lf.batch_norm(32), lf.relu(), lf.dropout(0.3), lf.linear(32, 10),
    }
    s:distill {
      student = model, teacher = teacher, data = data.train, validation = data.valid, batch = 16, accumulate = 2,
      epochs = s.params.epochs, seed = 3, ema = 0.95, class_weights = { 1, 2, 1, 1, 1, 1, 1, 1, 1, 0.5 },
      optimizer = lf.adamw { lr = 3e-3, clip_norm = 1, schedule = { "plateau", patience = 0, threshold = 0.1 } },
      max_steps = s.params.stop > 0 and s.params.stop or nil,
      patience = 9, checkpoint = s.params.checkpoint, resume = s.params.checkpoint, checkpoint_every = s.params.every,
    }
  end,
}
]])
end)
teardown(function() helper.remove(folder) end)

local function command(checkpoint, ...)
  local data = helper.source .. "/datasets/digits.h5"
  return { helper.lavaflow, "run", script, "data=" .. data, "checkpoint=" .. checkpoint, "--device", device, "-q", ... }
end

-- The digest of the weights at the end, and every loss that the runs told.
local function result(...)
  local digests, losses
  for _, run in ipairs { ... } do
    local entry = core.h5_read(folder .. "/" .. run, "/entry", 100000)
    digests, losses = entry.digests.train, losses or {}
    local told = entry.metrics.train.step_loss or { step = {} } -- none where only the validation was left
    for i, step in ipairs(told.step) do losses[step] = told.value[i] end
  end
  return digests.sha256[#digests.sha256], losses
end

local function run(...)
  local ended = helper.run(command(...), { cwd = folder })
  assert.same({ 0, "" }, { ended.code, ended.err })
end

describe("a training", function()
  local whole, losses
  setup(function()
    run("whole.h5", "--record", "whole.run.h5")
    whole, losses = result "whole.run.h5"
    assert.equal(2 * 82, #losses) -- 1,297 rows in batches of 16
  end)

  it("of_two_epochs_is_one_and_another_one_in_a_new_process", function()
    run("two.h5", "stop=82", "--record", "one.run.h5")
    run("two.h5", "--record", "two.run.h5")
    local digest, parts = result("one.run.h5", "two.run.h5")
    assert.equal(whole, digest)
    assert.same(losses, parts)
  end)

  it("may_stop_in_the_middle_of_an_epoch", function()
    run("half.h5", "stop=30", "--record", "half.run.h5")
    run("half.h5", "--record", "rest.run.h5")
    local digest, parts = result("half.run.h5", "rest.run.h5")
    assert.equal(whole, digest)
    assert.same(losses, parts)
  end)

  it("that_is_killed_at_any_moment_goes_on_from_its_checkpoint", function()
    local kills = 0
    for attempt = 1, 200 do
      local timer, wait = uv.new_timer(), 40 + attempt * 37 % 400 + 20 * attempt
      local ended = helper.run(command("killed.h5", "every=4", "--record", "killed.run.h5"), {
        cwd = folder,
        on_start = function(process)
          timer:start(wait, 0, function()
            if not process:is_closing() then process:kill "sigkill" end
          end)
         end,
      })
      timer:close()
      uv.run() -- closes it
      if ended.code == 0 and ended.signal == 0 then break end
      assert.equal(9, ended.signal, ended.err)
      kills = kills + 1
    end
    assert.is_true(kills > 0, "nothing was killed")
    assert.equal(whole, (result "killed.run.h5"))
  end)
end)
