-- Losses, weights of rows and classes, accumulation, averages and optimizers against their formulas.
local lf = require "lavaflow"
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

local function train(given)
  local t = { model = lf.mlp { 4, 8, 3, seed = 1 }, device = helper.device, epochs = 3, batch = 48, shuffle = false,
    optimizer = lf.sgd { lr = 0.1 } }
  for name, value in pairs(given) do t[name] = value end
  return lf.train(t), t.model
end

local function mean(t)
  local sum = 0
  for _, value in ipairs(t) do sum = sum + value end
  return sum / #t
end

local function log_sum_exp(z)
  local most, sum = math.max(table.unpack(z)), 0
  for _, value in ipairs(z) do sum = sum + math.exp(value - most) end
  return most + math.log(sum)
end

local formulas = {
  mse = function(z, t) return (z - t) ^ 2 end,
  mae = function(z, t) return math.abs(z - t) end,
  huber = function(z, t, delta)
    local d = math.abs(z - t)
    return d <= delta and d * d / 2 or delta * (d - delta / 2)
  end,
  binary_cross_entropy = function(z, t) return math.max(z, 0) - z * t + math.log(1 + math.exp(-math.abs(z))) end,
}

describe("losses", function()
  it("of_values_are_their_formulas", function()
    for loss, formula in pairs(formulas) do
      local test = open(loss == "binary_cross_entropy" and "sides" or "values").test
      local model = lf.mlp { 4, 8, 2, seed = 2 }
      local _, targets = test:read(0, test.rows)
      for _, delta in ipairs(loss == "huber" and { 1, 0.3 } or { false }) do
        local losses = {}
        for i, z in ipairs(lf.predict { model = model, data = test, device = helper.device }) do
          losses[i] = mean { formula(z[1], targets[i][1], delta), formula(z[2], targets[i][2], delta) }
        end
        local scores = lf.evaluate { model = model, data = test, loss = loss, delta = delta or nil,
          device = helper.device }
        near(mean(losses), scores.loss, 1e-5, loss)
      end
    end
  end)

  it("of_classes_are_smoothed_and_weighted_as_the_reference_says", function()
    local test, model = open("good").test, lf.mlp { 4, 8, 3, seed = 2 }
    local _, labels = test:read(0, test.rows)
    local weights, smoothing, sum, total = { 1, 2, 0.5 }, 0.2, 0, 0
    for i, z in ipairs(lf.predict { model = model, data = test, device = helper.device }) do
      local label = labels[i] + 1
      local loss = log_sum_exp(z) - (1 - smoothing) * z[label] - smoothing * mean(z)
      sum, total = sum + weights[label] * loss, total + weights[label]
    end
    local scores = lf.evaluate { model = model, data = test, device = helper.device, label_smoothing = smoothing,
      class_weights = weights }
    near(sum / total, scores.loss, 1e-5)
  end)

  it("of_values_learn_and_count_hits_of_sides_alone", function()
    for loss in pairs(formulas) do
      local binary = loss == "binary_cross_entropy"
      local data = open(binary and "sides" or "values")
      local history = train { model = lf.mlp { 4, 16, 2, seed = 1 }, data = data.train, validation = data.test,
        loss = loss, epochs = 60, batch = 8, optimizer = lf.adam { lr = 1e-2 } }
      assert.is_true(history.final.val_loss < 0.7 * history.val_loss[1], loss)
      assert.equal(binary, history.accuracy ~= nil)
      if binary then assert.is_true(history.final.val_accuracy > 0.9, history.final.val_accuracy) end
    end
  end)

  it("of_one_output_take_class_numbers_0_and_1", function()
    local data = open "two"
    local history = train { model = lf.mlp { 4, 8, 1, seed = 1 }, data = data.train, validation = data.test,
      loss = "binary_cross_entropy", epochs = 40, batch = 8, optimizer = lf.adam { lr = 1e-2 } }
    assert.is_true(history.final.val_accuracy > 0.9, history.final.val_accuracy)
  end)
end)

describe("weights", function()
  it("parts_say_whether_they_have_them", function()
    assert.is_true(open("weighted").train.weighted)
    assert.is_false(open("good").train.weighted)
    local flat = lf.dataset { file = folder .. "/flat_weighted.h5", x = "/data/x", y = "/data/y", w = "/data/w" }
    assert.is_true(flat.train.weighted)
    helper.refused("lf.dataset: w: expected x with it, got none", lf.dataset,
      { file = folder .. "/weighted.h5", w = "/train/w" })
    helper.refused("negative_weight.h5:/train/w", function() train { data = open("negative_weight").train } end)
  end)

  it("count_a_row_as_often_as_they_say", function()
    local weighted, model = train { data = open("weighted").train }
    local repeated, other = train { data = open("repeated").train }
    near(repeated.loss, weighted.loss, 1e-5, "loss")
    for _, name in ipairs { "linear_1/kernel", "linear_2/bias" } do
      near(other:weights(name), model:weights(name), 1e-5, name)
    end
    local scores = lf.evaluate { model = model, data = open("weighted").train, device = helper.device }
    near(lf.evaluate({ model = model, data = open("repeated").train, device = helper.device }).loss, scores.loss, 1e-5)
  end)

  it("of_classes_are_those_of_their_rows", function()
    local by_class = train { data = open("good").train, class_weights = { 1, 2, 0.5 }, batch = 16 }
    local by_row = train { data = open("class_weighted").train, batch = 16 }
    near(by_row.loss, by_class.loss, 1e-6, "loss")
    assert.not_equal(train({ data = open("good").train, batch = 16 }).digest, by_class.digest)
  end)

  it("of_zero_leave_a_class_out", function()
    local _, model = train { data = open("good").train, class_weights = { 1, 1, 0 }, epochs = 40 }
    local scores = lf.evaluate { model = model, data = open("good").train, device = helper.device }
    assert.equal(0, scores.recall[3])
  end)
end)

describe("updates", function()
  it("of_accumulated_batches_are_those_of_one_large_batch", function()
    local data = open("weighted").train
    local large, one = train { data = data }
    local parts, other = train { data = data, batch = 8, accumulate = 6 }
    assert.same({ 3, 18 }, { large.steps, parts.steps })
    near(large.loss, parts.loss, 1e-5, "loss")
    near(one:weights "linear_1/kernel", other:weights "linear_1/kernel", 1e-5)
    -- The last group of an epoch may be shorter: 48 rows are 5 batches of 10, the last of 8; groups of 2, 2 and 1.
    assert.equal(15, train({ data = data, batch = 10, accumulate = 2 }).steps)
  end)

  it("count_in_schedules", function()
    local data = open("good").train
    local history = train { data = data, batch = 8, accumulate = 3, epochs = 4,
      optimizer = lf.sgd { lr = 1, schedule = { "exponential", gamma = 0.5 } } }
    near({ 0.5, 0.125, 2 ^ -5, 2 ^ -7 }, history.lr, 1e-7, "lr") -- 2 updates an epoch
  end)

  it("move_the_average_that_validation_and_the_model_use", function()
    local data = open "good"
    local before = lf.mlp { 4, 8, 3, seed = 1 }
    local given = { data = data.train, validation = data.test, epochs = 1 }
    local _, plain = train(given)
    given.ema = 0.75
    local history, average = train(given)
    for _, name in ipairs { "linear_1/kernel", "linear_2/bias" } do
      local expected, after = before:weights(name), plain:weights(name)
      for i, value in ipairs(expected) do expected[i] = value + 0.25 * (after[i] - value) end
      near(expected, average:weights(name), 1e-6, name)
    end
    near(lf.evaluate({ model = average, data = data.test, device = helper.device }).loss, history.final.val_loss, 1e-6)
    assert.equal(average:digest(), history.digest)
  end)
end)

describe("optimizers", function()
  -- The kernel of a linear model before and after one update, as arrays; `biases` too.
  local function update(optimizer)
    local model = lf.sequential { lf.linear(4, 3), seed = 5 }
    local function values()
      return { kernel = model:weights "linear_1/kernel", bias = model:weights "linear_1/bias" }
    end
    local before = values()
    train { model = model, data = open("good").train, epochs = 1, optimizer = optimizer }
    return before, values()
  end

  local function gradient()
    local before, after = update(lf.sgd { lr = 1 })
    local g = {}
    for name, values in pairs(before) do
      g[name] = {}
      for i, value in ipairs(values) do g[name][i] = value - after[name][i] end
    end
    return g
  end

  local function norm(t)
    local sum = 0
    for _, value in ipairs(t) do sum = sum + value * value end
    return math.sqrt(sum)
  end

  local function sign(x) return x > 0 and 1 or x < 0 and -1 or 0 end

  it("take_the_first_step_of_their_formulas", function()
    local g = gradient()
    local function check(optimizer, step)
      local before, after = update(optimizer)
      for name, values in pairs(before) do
        local expected = {}
        for i, w in ipairs(values) do expected[i] = w - step(g[name][i], w, name, i, before) end
        near(expected, after[name], 2e-5, optimizer.kind .. " " .. name)
      end
    end
    check(lf.rmsprop { lr = 0.1, alpha = 0.9 }, function(x) return 0.1 * x / (math.sqrt(0.1 * x * x) + 1e-8) end)
    check(lf.rmsprop { lr = 0.1, weight_decay = 0.5, momentum = 0.9 }, function(x, w)
      x = x + 0.5 * w
      return 0.1 * x / (math.sqrt(0.01 * x * x) + 1e-8)
    end)
    check(lf.lion { lr = 0.01, weight_decay = 0.5 }, function(x, w, name)
      return 0.01 * (sign(x) + (name == "kernel" and 0.5 * w or 0))
    end)
    check(lf.lamb { lr = 0.01, weight_decay = 0.5, decay_bias = true }, function(_, _, name, i, before)
      local d = {}
      for k, w in ipairs(before[name]) do
        local x = g[name][k]
        d[k] = x / (math.abs(x) + 1e-6) + 0.5 * w
      end
      return 0.01 * norm(before[name]) / norm(d) * d[i]
    end)
    check(lf.adam { lr = 0.01, weight_decay = 0.5 }, function(x, w)
      return 0.01 * sign(x + 0.5 * w)
    end)
  end)

  it("clip_the_length_or_each_number_of_the_gradient", function()
    local function change(optimizer)
      local before, after = update(optimizer)
      local all = {}
      for name, values in pairs(before) do
        for i, value in ipairs(values) do all[#all + 1] = value - after[name][i] end
      end
      return all
    end
    local free = change(lf.sgd { lr = 1 })
    assert.is_true(norm(free) > 0.02)
    local short = change(lf.sgd { lr = 1, clip_norm = 0.01 })
    near(0.01, norm(short), 1e-6)
    near(free[1] / norm(free), short[1] / norm(short), 1e-4)
    near(free, change(lf.sgd { lr = 1, clip_norm = 100 }), 1e-6)
    for i, value in ipairs(change(lf.sgd { lr = 1, clip_value = 0.01 })) do
      near(sign(free[i]) * math.min(math.abs(free[i]), 0.01), value, 1e-6)
    end
  end)

  it("decay_biases_where_decay_bias_says", function()
    -- With next to no gradient left, what moves is what decays.
    local defaults = { sgd = true, adamw = false, rmsprop = true, lion = false, lamb = false, adam = true }
    for kind, default in pairs(defaults) do
      local digests = {}
      for _, choice in ipairs { "absent", true, false } do
        local model = lf.sequential { lf.linear(4, 3), seed = 5 }
        local decay_bias = choice ~= "absent" and choice or nil
        if choice == false then decay_bias = false end
        digests[choice] = train({ model = model, data = open("good").train,
          optimizer = lf[kind] { lr = 0.01, weight_decay = 0.1, decay_bias = decay_bias } }).digest
      end
      assert.equal(digests[default], digests.absent, kind)
      assert.not_equal(digests[not default], digests.absent, kind)
    end
    local before, after = update(lf.sgd { lr = 0.5, weight_decay = 1, clip_value = 1e-12, decay_bias = false })
    near(before.bias, after.bias, 1e-7)
    for i, w in ipairs(before.kernel) do near(0.5 * w, after.kernel[i], 1e-7) end
  end)
end)
