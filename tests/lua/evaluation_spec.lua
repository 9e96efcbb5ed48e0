-- Scores and predictions of models whose outputs are known.
local lf = require "lavaflow"
local core = require "lavaflow.core"
local helper = require "helper"

if not helper.device_present then
  pending("skipped: this machine has no device " .. helper.device)
  return
end

local folder
setup(function()
  folder = helper.folder()
  helper.fixtures(folder)
end)
teardown(function() helper.remove(folder) end)

local near = helper.near

local function open(name) return lf.dataset(folder .. "/" .. name .. ".h5") end

-- A model whose outputs are its inputs.
local function identity(width)
  local model, kernel, bias = lf.sequential { lf.linear(width, width) }, {}, {}
  for i = 1, width do
    bias[i] = 0
    for j = 1, width do kernel[(i - 1) * width + j] = i == j and 1 or 0 end
  end
  model:set_weights("linear_1/kernel", kernel)
  model:set_weights("linear_1/bias", bias)
  return model
end

local function evaluate(name, width, given)
  local t = { model = identity(width), data = open(name).test, device = helper.device }
  for key, value in pairs(given or {}) do t[key] = value end
  return lf.evaluate(t)
end

describe("scores", function()
  it("of_classes_are_those_of_the_confusion", function()
    for _, batch in ipairs { 256, 2 } do
      local scores = evaluate("table", 4, { top_k = 2, batch = batch })
      assert.same({ { 2, 1, 0, 0 }, { 0, 2, 1, 0 }, { 1, 0, 0, 0 }, { 0, 0, 0, 0 } }, scores.confusion)
      assert.equal("integer", math.type(scores.confusion[1][1]))
      near(4 / 7, scores.accuracy, 1e-12)
      near(6 / 7, scores.top_k_accuracy, 1e-12)
      near({ 2 / 3, 2 / 3, 0, 0 }, scores.precision, 1e-12, "precision")
      near({ 2 / 3, 2 / 3, 0, 0 }, scores.recall, 1e-12, "recall")
      near({ 2 / 3, 2 / 3, 0, 0 }, scores.f1, 1e-12, "f1")
      near(1 / 3, scores.macro_f1, 1e-12)
      assert.same({ 7, 2, helper.device }, { scores.rows, scores.top_k, scores.device })
      assert.same({}, { scores.mse, scores.mae, scores.r2, scores.rmse })
    end
  end)

  it("count_the_five_largest_outputs_or_as_many_as_there_are", function()
    local scores = evaluate("table", 4)
    assert.same({ 4, 1 }, { scores.top_k, scores.top_k_accuracy })
    local digits = lf.dataset(helper.source .. "/datasets/digits.h5")
    local function score(top_k)
      return lf.evaluate { model = lf.mlp { 64, 10, seed = 1 }, data = digits.test, top_k = top_k,
        device = helper.device }
    end
    local wide = score(nil)
    assert.equal(5, wide.top_k)
    assert.is_true(wide.top_k_accuracy > wide.accuracy)
    assert.equal(wide.accuracy, score(1).top_k_accuracy)
  end)

  it("of_values_are_over_all_outputs_together", function()
    for _, loss in ipairs { "mse", "mae", "huber" } do
      local scores = evaluate("table_values", 2, { loss = loss })
      near(26 / 8, scores.mse, 1e-6)
      near(math.sqrt(26 / 8), scores.rmse, 1e-6)
      near(10 / 8, scores.mae, 1e-6)
      near(1 - 26 / 723, scores.r2, 1e-6)
      assert.same({}, { scores.accuracy, scores.confusion, scores.top_k })
    end
    near(26 / 8, evaluate("table_values", 2, { loss = "mse" }).loss, 1e-6)
    near(10 / 8, evaluate("table_values", 2, { loss = "mae" }).loss, 1e-6)
  end)

  it("of_sides_are_fractions_of_the_outputs", function()
    local scores = evaluate("table_binary", 2, { loss = "binary_cross_entropy" })
    near(5 / 8, scores.accuracy, 1e-12)
    assert.same({}, { scores.confusion, scores.r2 })
  end)
end)

describe("predictions", function()
  local rows = { { 3, 1, 0, -1 }, { 0, 4, 1, -1 } }

  local function predict(given)
    local t = { model = identity(4), device = helper.device }
    for key, value in pairs(given) do t[key] = value end
    return lf.predict(t)
  end

  it("are_outputs_probabilities_sigmoids_or_classes", function()
    assert.same(rows, predict { x = rows })
    assert.same(rows, predict { x = rows, as = "logits" })
    assert.same(rows, predict { x = rows, as = "values" })
    local classes = predict { x = rows, as = "classes" }
    assert.same({ 0, 1 }, classes)
    assert.equal("integer", math.type(classes[1]))
    local sigmoid, probabilities = predict { x = rows, as = "sigmoid" }, predict { x = rows, as = "probabilities" }
    for i, row in ipairs(rows) do
      local sum = 0
      for _, z in ipairs(row) do sum = sum + math.exp(z) end
      for j, z in ipairs(row) do
        near(1 / (1 + math.exp(-z)), sigmoid[i][j], 1e-6)
        near(math.exp(z) / sum, probabilities[i][j], 1e-6)
      end
    end
  end)

  it("of_large_outputs_are_still_numbers", function()
    local sigmoid = predict { x = { { 1000, -1000, 0, 90 } }, as = "sigmoid" }[1]
    near({ 1, 0, 0.5, 1 }, sigmoid, 1e-6)
    near({ 1, 0, 0, 0 }, predict({ x = { { 1000, -1000, 0, 90 } }, as = "probabilities" })[1], 1e-6)
  end)

  it("are_the_same_from_the_model_s_method", function()
    local test = open("table").test
    assert.same({ 0, 0, 1, 1, 1, 2, 0 }, identity(4):predict(test, { device = helper.device, as = "classes" }))
  end)

  it("go_to_a_file_whole", function()
    local test, path = open("table").test, folder .. "/p.h5"
    for _, batch in ipairs { 256, 3 } do
      local result = predict { data = test, output = path, batch = batch }
      assert.same({ rows = 7, outputs = 4, path = path }, result)
      local file = core.h5_read(path, "/", 1000)
      assert.same({ 7, 4 }, file.prediction.shape)
      local flat = {}
      for _, row in ipairs(predict { data = test }) do table.move(row, 1, 4, #flat + 1, flat) end
      file.prediction.shape = nil
      assert.same(flat, file.prediction)
    end
    predict { data = test, output = path, as = "classes" }
    assert.same({ 0, 0, 1, 1, 1, 2, 0, shape = { 7 } }, core.h5_read(path, "/", 1000).prediction)
    predict { x = rows, output = path, as = "probabilities" }
    local read = core.h5_read(path, "/", 1000).prediction
    near(1, read[1] + read[2] + read[3] + read[4], 1e-6)
    local left = {}
    for _, name in ipairs(helper.list(folder)) do
      if name:find "p%.h5" then left[#left + 1] = name end
    end
    assert.same({ "p.h5" }, left)
  end)

  it("that_fail_leave_the_file_that_was_there", function()
    local path = helper.write(folder .. "/old.h5", "old")
    helper.refused("nan", predict, { x = { { 0 / 0, 1, 2, 3 } }, output = path })
    assert.equal("old", helper.read(path))
    helper.remove(path)
  end)
end)
