-- The regression workflow as it stands: it explains most of the variance, and writes what it predicts.
local core = require "lavaflow.core"
local helper = require "helper"

local folder
setup(function() folder = helper.folder() end)
teardown(function() helper.remove(folder) end)

describe("regression", function()
  it("explains_more_than_0_8_of_the_variance_and_writes_predictions", function()
    local data = helper.source .. "/datasets/friedman.h5"
    local result = helper.cli(folder, "run", helper.source .. "/workflows/regression.lua", "--device", "cpu",
      "data=" .. data, "--record", "run.h5")
    assert.same({ 0, "" }, { result.code, result.err })
    local entry = core.h5_read(folder .. "/run.h5", "/entry", 100000)
    local scores, metrics = entry.evaluations.test, entry.metrics
    assert.is_true(scores.r2 > 0.8, ("R2 %g"):format(scores.r2))
    assert.equal(scores.r2, metrics.test.r2.value[1])
    helper.near(scores.mse, metrics.test.rmse.value[1] ^ 2, 1e-9)
    assert.equal(metrics.train["@best_value"], metrics.train.val_loss.value[metrics.train["@best_epoch"]])

    -- What the file holds gives the score that the run file says.
    local predictions = core.h5_read(folder .. "/results/friedman_predictions.h5", "/", 1000000).prediction
    local targets = core.h5_read(data, "/test", 1000000).y
    assert.same({ targets.shape[1], 1 }, predictions.shape)
    local errors = 0
    for i, value in ipairs(predictions) do errors = errors + (value - targets[i]) ^ 2 end
    helper.near(scores.mse, errors / #predictions, 1e-4 * scores.mse)
  end)
end)
