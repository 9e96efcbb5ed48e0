-- Initialisers, dropout, norms, residuals and schedules as scripts write them.
local lf = require "lavaflow"
local helper = require "helper"

local folder, data
setup(function()
  folder = helper.folder()
  helper.fixtures(folder)
  data = lf.dataset(folder .. "/good.h5")
end)
teardown(function()
  data:close()
  helper.remove(folder)
end)

local refused = helper.refused

local function every_layer()
  return lf.sequential {
    lf.dropout(0.1), lf.linear(4, 8), lf.batch_norm(8), lf.relu(),
    lf.residual { lf.linear(8, 8), lf.gelu(), lf.dropout(0.2), lf.residual { lf.layer_norm(8), lf.linear(8, 8) } },
    lf.residual { lf.linear(8, 3, { init = "he_normal" }), init = "glorot_uniform" },
  }
end

local function train(given)
  local t = { model = every_layer(), data = data.train, validation = data.test, device = "cpu", epochs = 3, batch = 8 }
  for name, value in pairs(given or {}) do t[name] = value end
  return lf.train(t), t.model
end

describe("layers", function()
  it("print_like_their_definition", function()
    assert.equal("sequential { dropout(0.1), linear(4 -> 8), batch_norm(8), relu(), residual { linear(8 -> 8), gelu(), "
      .. "dropout(0.2), residual { layer_norm(8), linear(8 -> 8) } }, residual { linear(8 -> 3) } }",
      tostring(every_layer()))
  end)

  it("print_an_option_of_zero", function()
    local zeros = lf.sequential { lf.dropout(0), lf.linear(4, 4), lf.leaky_relu(0), lf.linear(4, 4), lf.elu(0) }
    assert.equal("sequential { dropout(0), linear(4 -> 4), leaky_relu(0), linear(4 -> 4), elu(0) }", tostring(zeros))
    local layers = zeros:layers()
    assert.same({ 0, 0 }, { layers[3].alpha, layers[5].alpha })
    assert.is_nil(lf.mlp({ 4, 3, 2 }):layers()[2].alpha)
  end)

  it("begin_with_a_constant_or_with_normal_numbers_of_a_deviation", function()
    local constant = lf.mlp { 4, 3, init = "constant", init_scale = -0.25, seed = 1 }
    for _, value in ipairs(constant:weights "linear_1/kernel") do assert.equal(-0.25, value) end
    local function deviation(given)
      local model = lf.sequential { lf.linear(50, 40, given), seed = 1 }
      local sum, squares = 0, 0
      for _, value in ipairs(model:weights "linear_1/kernel") do sum, squares = sum + value, squares + value ^ 2 end
      for _, value in ipairs(model:weights "linear_1/bias") do assert.equal(0, value) end
      assert.is_true(math.abs(sum / 2000) <= 0.15 * math.sqrt(squares / 2000))
      return math.sqrt(squares / 2000)
    end
    helper.near(0.05, deviation { init = "normal" }, 0.005)
    helper.near(2, deviation { init = "normal", init_scale = 2 }, 0.2)
    assert.equal(0, deviation { init = "normal", init_scale = 0 })
    local model = lf.sequential { lf.linear(4, 3, { init = "normal", init_scale = 0.5 }), seed = 1 }
    model:save(folder .. "/init.h5")
    assert.equal(model:definition(), lf.load(folder .. "/init.h5"):definition())
    helper.has(model:definition(), '"init_scale":0.5')
    helper.remove(folder .. "/init.h5")
  end)

  it("are_saved_and_loaded_with_their_statistics", function()
    local history, model = train {}
    local path = folder .. "/layers.h5"
    model:save(path)
    local loaded = lf.load(path)
    assert.equal(model:definition(), loaded:definition())
    assert.equal(history.digest, loaded:digest())
    local function accuracy(which) return lf.evaluate { model = which, data = data.test, device = "cpu" }.loss end
    assert.equal(history.final.val_loss, accuracy(loaded))
    local names = {}
    for _, tensor in ipairs(loaded:tensors()) do names[tensor.name] = tensor.cols end
    assert.equal(8, names["batch_norm_1/mean"])
    assert.equal(8, names["layer_norm_1/gamma"])
    assert.equal(3, names["residual_3/kernel"]) -- the projection; the others keep their width
    assert.is_nil(names["residual_1/kernel"])
    assert.not_equal(0, loaded:weights "batch_norm_1/mean"[1])
    helper.remove(path)
  end)

  it("give_equal_bits_on_every_run", function()
    assert.equal(train({}).digest, train({}).digest)
    assert.not_equal(train({ seed = 1 }).digest, train({ seed = 2 }).digest)
  end)

  it("are_refused_with_the_argument_and_the_value", function()
    refused("lf.dropout: rate: expected a number of at least 0 and below 1, got 1", lf.dropout, 1)
    refused("lf.dropout: rate: expected a number", lf.dropout)
    refused("lf.batch_norm: width: expected a whole number", lf.batch_norm, 0)
    refused("lf.residual: expected at least one layer, got none", lf.residual, {})
    refused("lf.residual: layer 1: expected a layer", lf.residual, { 3 })
    refused("layer 2 (batch_norm_1): expects 9 inputs, but layer 1 (linear_1) gives 8", lf.sequential,
      { lf.linear(4, 8), lf.batch_norm(9) })
    refused("layer 3 (linear_2): expects 7 inputs, but layer 1 (linear_1) gives 8", lf.sequential,
      { lf.linear(4, 8), lf.residual { lf.linear(7, 8) } })
    refused("element 2: expected a value, got nothing", lf.sequential, { lf.linear(8, 4), nil, lf.linear(4, 3) })
    refused("batch_norm_1 needs batches of at least 2 rows", train, { batch = 1 })
  end)
end)

describe("schedules", function()
  it("set_the_rate_of_every_epoch", function()
    local function rates(schedule)
      local history = train { optimizer = lf.adam { lr = 1e-2, schedule = schedule }, epochs = 4 }
      for i, lr in ipairs(history.lr) do history.lr[i] = tonumber(("%.6g"):format(lr)) end
      return history.lr
    end
    assert.same({ 0.01, 0.01, 0.01, 0.01 }, rates "constant")
    assert.same({ 0.01, 0.001, 0.0001, 1e-05 }, rates { "step", every = 1, per = "epoch" })
    local halves = { "multistep", milestones = { 1, 3 }, gamma = 0.5, per = "epoch" }
    assert.same({ 0.01, 0.005, 0.005, 0.0025 }, rates(halves))
    assert.same({ 0.01, 0.009, 0.0081, 0.00729 }, rates { "exponential", gamma = 0.9, per = "epoch" })
    assert.same({ 0.005, 0.01, 0.01, 0.01 }, rates { "constant", warmup = 2, per = "epoch" })
    local cosine = rates { "cosine", per = "epoch" }
    assert.equal(0.01, cosine[1])
    assert.equal(0.005, cosine[3])
  end)

  it("are_refused_with_the_option_and_the_value", function()
    refused('lf.adam: schedule: kind: expected one of constant, cosine', lf.adam, { schedule = "cosinus" })
    refused("every: expected a whole number of at least 1, got nothing", lf.adam, { schedule = { "step" } })
    refused('unknown option "gama"; nearest: gamma', lf.sgd, { schedule = { "exponential", gamma = 1, gama = 1 } })
    refused("schedule: expected a schedule", lf.adam, { schedule = 3 })
  end)
end)
