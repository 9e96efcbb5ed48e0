local lf = require "lavaflow"
local helper = require "helper"

local folder
setup(function() folder = helper.folder() end)
teardown(function() helper.remove(folder) end)

describe("models", function()
  it("mlp_is_the_short_form_of_sequential", function()
    local short = lf.mlp { 784, 128, 10, activation = "relu" }
    local long = lf.sequential { lf.linear(784, 128), lf.relu(), lf.linear(128, 10) }
    assert.equal(long:definition(), short:definition())
    assert.equal("sequential { linear(784 -> 128), relu(), linear(128 -> 10) }", tostring(short))
  end)

  it("layers_are_named_by_kind_and_ordinal", function()
    local names = {}
    for i, layer in ipairs(lf.mlp({ 4, 3, 2, activation = "tanh" }):layers()) do names[i] = layer.name end
    assert.same({ "linear_1", "tanh_1", "linear_2" }, names)
  end)

  it("every_activation_makes_a_layer", function()
    for _, kind in ipairs { "relu", "gelu", "silu", "tanh", "sigmoid", "softplus", "leaky_relu", "elu" } do
      local model = lf.sequential { lf.linear(2, 2), lf[kind] { name = "act" }, lf.linear(2, 1) }
      assert.equal(kind, model:layers()[2].kind)
      assert.equal("act", model:layers()[2].name)
    end
    assert.is_true(math.abs(lf.sequential({ lf.linear(2, 2), lf.leaky_relu(0.3) }):layers()[2].alpha - 0.3) < 1e-6)
  end)

  it("a_seed_draws_the_same_weights_each_time_and_another_seed_others", function()
    local a, b = lf.mlp { 4, 8, 3, seed = 1 }, lf.mlp { 4, 8, 3, seed = 1 }
    assert.is_true(a:initialised())
    assert.equal(a:digest(), b:digest())
    assert.not_equal(a:digest(), lf.mlp({ 4, 8, 3, seed = 2 }):digest())
  end)

  it("weights_come_from_the_named_init", function()
    for _, value in ipairs(lf.mlp({ 4, 3, init = "zeros", seed = 1 }):weights "linear_1/kernel") do
      assert.equal(0, value)
    end
    for _, value in ipairs(lf.mlp({ 16, 3, seed = 1 }):weights "linear_1/kernel") do
      assert.is_true(math.abs(value) <= 1 / math.sqrt(16))
    end
  end)

  it("a_saved_model_loads_with_equal_definition_and_bits", function()
    local model = lf.sequential { lf.linear(4, 8, { init = "he_normal" }), lf.elu(0.5), lf.linear(8, 3), seed = 3 }
    model:save(folder .. "/m.h5")
    local loaded = lf.load(folder .. "/m.h5")
    assert.equal(model:definition(), loaded:definition())
    assert.equal(model:digest(), loaded:digest())
  end)

  it("predict_is_kernel_and_bias_applied", function()
    local model = lf.sequential { lf.linear(2, 2) }
    model:set_weights("linear_1/kernel", { 1, 2, 3, 4 }) -- (inputs, outputs)
    model:set_weights("linear_1/bias", { 10, 20 })
    assert.same({ { 14, 26 }, { 11, 22 } }, model:predict({ { 1, 1 }, { 1, 0 } }, { device = "cpu" }))
  end)
end)

describe("a wrong model", function()
  local function refused(part, fn)
    helper.has(helper.message(fn), part)
  end

  it("names_the_layers_that_do_not_fit", function()
    refused("layer 3 (linear_2): expects 128 inputs, but layer 1 (linear_1) gives 64", function()
      lf.sequential { lf.linear(784, 64), lf.relu(), lf.linear(128, 10) }
    end)
  end)

  it("is_refused_with_the_argument_and_the_value", function()
    refused("lf.linear: inputs: expected a whole number of at least 1, got 0", function() lf.linear(0, 3) end)
    refused("lf.linear: outputs: expected a whole number of at least 1, got nothing", function() lf.linear(3) end)
    refused('lf.linear: init: expected one of uniform, he_normal', function() lf.linear(3, 4, { init = "he" }) end)
    refused("lf.leaky_relu: alpha: expected a finite number", function() lf.leaky_relu "a" end)
    refused("layer 1: expected a layer, such as lf.relu(), got a function", function() lf.sequential { lf.relu } end)
    refused("expected at least one layer, got none", function() lf.sequential {} end)
    refused("at least one linear layer", function() lf.sequential { lf.relu() } end)
    refused('unknown option "sed"; nearest: seed', function() lf.sequential { lf.linear(2, 2), sed = 1 } end)
    refused("lf.mlp: expected at least 2 widths, got 1", function() lf.mlp { 4 } end)
    refused("lf.mlp: width 2: expected a whole number of at least 1, got -3", function() lf.mlp { 4, -3 } end)
    refused('lf.mlp: activation: expected one of elu, ', function() lf.mlp { 4, 3, activation = "relo" } end)
  end)

  it("is_not_saved_without_weights", function()
    refused("the model has no weights yet", function() lf.mlp({ 4, 3 }):save(folder .. "/none.h5") end)
    assert.is_false(helper.exists(folder .. "/none.h5"))
  end)

  it("leaves_nothing_where_it_cannot_be_saved", function()
    local model = lf.mlp { 4, 3, seed = 1 }
    helper.write(folder .. "/file", "x")
    refused(folder .. "/file", function() model:save(folder .. "/file/m.h5") end)
    refused("/nowhere", function() model:save "/nowhere/m.h5" end)
    refused("/proc/m.h5", function() model:save "/proc/m.h5" end)
    assert.equal("x", helper.read(folder .. "/file"))
  end)

  it("file_is_refused_with_its_path", function()
    refused("nope.h5: cannot open: No such file or directory", function() lf.load "nope.h5" end)
    helper.write(folder .. "/text.h5", "not HDF5")
    refused("text.h5: is not an HDF5 file", function() lf.load(folder .. "/text.h5") end)
    local model = lf.mlp { 4, 3, seed = 1 }
    model:save(folder .. "/whole.h5")
    local bytes = helper.read(folder .. "/whole.h5")
    helper.write(folder .. "/cut.h5", bytes:sub(1, #bytes // 2))
    refused("cut.h5: ", function() lf.load(folder .. "/cut.h5") end)
  end)

  it("cannot_predict_rows_of_other_widths_or_values", function()
    local model = lf.mlp { 4, 3, seed = 1 }
    refused("row 1 has 3 numbers, but the model expects 4", function() model:predict { { 1, 2, 3 } } end)
    refused("row 1: number 4 is a string", function() model:predict { { 1, 2, 3, "x" } } end)
    refused("value", function() model:predict { { 1, 2, 3, 0 / 0 } } end)
    refused("expected a part of a data set", function() model:predict(3) end)
    refused("has no weights yet", function() lf.mlp({ 4, 3 }):predict { { 1, 2, 3, 4 } } end)
  end)
end)
