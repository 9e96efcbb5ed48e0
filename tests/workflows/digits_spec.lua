-- The project's first workflow, end to end, on LAVAFLOW_TEST_DEVICE.
local core = require "lavaflow.core"
local helper = require "helper"

local device = helper.device

local folder
setup(function() folder = helper.folder() end)
teardown(function() helper.remove(folder) end)

local function run(record)
  local result = helper.cli(folder, "run", helper.source .. "/workflows/digits.lua", "--device", device,
    "data=" .. helper.source .. "/datasets/digits.h5", "--record", record)
  assert.same({ 0, "" }, { result.code, result.err })
  return core.h5_read(folder .. "/" .. record, "/entry", 100000), result
end

describe("digits on " .. device, function()
  if not helper.device_present then
    pending("skipped: this machine has no device " .. device)
    return
  end

  it("reaches_95_percent_and_two_runs_give_equal_bits", function()
    local first, result = run "1.h5"
    local accuracy = first.metrics.evaluate.test_accuracy.value[1]
    assert.is_true(accuracy >= 0.95, ("test accuracy %g"):format(accuracy))
    helper.has(result.out, ("evaluate  test_accuracy %.6g"):format(accuracy))
    assert.equal(device, first.step_1.device)
    assert.equal(device, first.system.device_0.id)

    local second = run "2.h5"
    assert.equal(20, #first.digests.train.sha256)
    assert.same(first.digests.train, second.digests.train)
    assert.same(first.metrics.train.step_loss.value, second.metrics.train.step_loss.value)
    assert.equal(core.h5_digest(folder .. "/1.h5", "/entry/result"), core.h5_digest(folder .. "/2.h5", "/entry/result"))
  end)
end)
