-- The MNIST workflow as it stands, from the IDX files, on LAVAFLOW_TEST_DEVICE. The data is not the project's: without
-- it these tests are skipped.
local core = require "lavaflow.core"
local helper = require "helper"

local device = helper.device
local source = helper.test_data .. "/mnist"

local folder
setup(function() folder = helper.folder() end)
teardown(function() helper.remove(folder) end)

describe("MNIST on " .. device, function()
  if not helper.device_present then
    pending("skipped: this machine has no device " .. device)
    return
  end
  if not helper.exists(source) then
    pending("skipped: no MNIST files in " .. source)
    return
  end

  setup(function()
    local result = helper.cli(folder, "import", "mnist", source, "-o", "mnist.h5")
    assert.same({ 0, "" }, { result.code, result.err })
  end)

  -- A software device takes its time: one seed there.
  for seed = 1, device == "cpu" and 3 or 1 do
    it("reaches_95_5_percent_with_seed_" .. seed, function()
      local result = helper.cli(folder, "run", helper.source .. "/workflows/mnist.lua", "--device", device, "-q",
        "data=mnist.h5", "seed=" .. seed, "--record", "run.h5")
      assert.same({ 0, "" }, { result.code, result.err })
      local accuracy = core.h5_read(folder .. "/run.h5", "/entry/metrics", 100).evaluate.test_accuracy.value[1]
      assert.is_true(accuracy >= 0.955, ("test accuracy %g"):format(accuracy))
    end)
  end

  it("explain_prints_the_programs_of_training_and_validation", function()
    local result = helper.cli(folder, "explain", helper.source .. "/workflows/mnist.lua", "--program", "data=mnist.h5")
    assert.equal(0, result.code)
    helper.has(result.out, "batch 64, loss cross_entropy, optimizer adam, 101770 parameters")
    helper.has(result.out, "linear relu: x (64, 784), linear_1/kernel (784, 128)")
    helper.has(result.out, "optimizer none")
  end)
end)
