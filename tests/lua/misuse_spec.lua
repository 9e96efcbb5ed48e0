-- What is refused before anything runs, with the option and both values.
local lf = require "lavaflow"
local helper = require "helper"

local folder, data, values, student, teacher
setup(function()
  folder = helper.folder()
  helper.fixtures(folder)
  data, values = lf.dataset(folder .. "/good.h5"), lf.dataset(folder .. "/values.h5")
  student, teacher = lf.mlp { 4, 6, 3 }, lf.mlp { 4, 8, 3, seed = 1 }
end)
teardown(function()
  data:close()
  values:close()
  helper.remove(folder)
end)

-- A function that calls `fn` with `common` and what it is given, and expects the message.
local function refuses(where, fn, common)
  return function(part, given)
    local t = common()
    for name, value in pairs(given) do t[name] = value end
    helper.refused(where .. ": " .. part, fn, t)
  end
end

local train = refuses("lf.train", lf.train, function()
  return { model = student, data = data.train, device = "cpu" }
end)
local distill = refuses("lf.distill", lf.distill, function()
  return { student = student, data = data.train, device = "cpu" }
end)
local evaluate = refuses("lf.evaluate", lf.evaluate, function()
  return { model = teacher, data = data.test, device = "cpu" }
end)
local predict = refuses("lf.predict", lf.predict, function()
  return { model = teacher, data = data.test, device = "cpu" }
end)

describe("a wrong loss", function()
  it("is_refused_with_the_option_and_the_value", function()
    train('loss: expected one of cross_entropy, binary_cross_entropy, mse, mae, huber, got "hinge"', { loss = "hinge" })
    train('label_smoothing: expected loss "cross_entropy" with it, got "mse"', { loss = "mse", label_smoothing = 0.1 })
    train("label_smoothing: expected a number of at least 0 and below 1, got 1", { label_smoothing = 1 })
    train('delta: expected loss "huber" with it, got "cross_entropy"', { delta = 2 })
    train("delta: expected a number above 0, got 0", { loss = "huber", delta = 0 })
    train('class_weights: expected loss "cross_entropy" with it, got "mae"', { loss = "mae", class_weights = { 1 } })
    train("class_weights: expected 3 numbers, one for each output of the model, got 2", { class_weights = { 1, 2 } })
    train("class_weights[2]: expected a number of at least 0, got -1", { class_weights = { 1, -1, 1 } })
    train("class_weights[2]: expected a number of at least 0, got nothing", { class_weights = { 1, nil, 1 } })
    train("class_weights: expected a number above 0 among them, got 3 zeros", { class_weights = { 0, 0, 0 } })
    train("class_weights: expected an array of numbers, one a class, got 3", { class_weights = 3 })
    train('class_weights: expected an array of numbers, one a class, got a table with "a"',
      { class_weights = { a = 1 } })
    evaluate('label_smoothing: expected loss "cross_entropy" with it, got "huber"',
      { loss = "huber", label_smoothing = 0.1 })
    evaluate('class_weights: expected 3 numbers, one for each output of the model, got 1', { class_weights = { 1 } })
  end)
end)

describe("a wrong training", function()
  it("is_refused_with_the_option_and_the_value", function()
    train("accumulate: expected a whole number of at least 1, got 0", { accumulate = 0 })
    train("ema: expected a number above 0 and below 1, got 1", { ema = 1 })
    train("ema: expected a number above 0 and below 1, got 0", { ema = 0 })
    train("patience: expected a whole number of at least 1, got 0", { patience = 0 })
    train('monitor: expected one of loss, accuracy, val_loss, val_accuracy, got "f1"', { monitor = "f1" })
    train('monitor: expected validation with "val_loss", got none', { monitor = "val_loss" })
    train('monitor: expected loss "cross_entropy" or "binary_cross_entropy" with "accuracy", got "mse"',
      { monitor = "accuracy", loss = "mse" })
    train("min_delta: expected a number of at least 0, got -1", { patience = 1, min_delta = -1 })
    train("min_delta: expected patience, restore_best, best or monitor with it, got none of them", { min_delta = 1 })
    train("restore_best: expected true or false, got 1", { restore_best = 1 })
    train("best: expected a path, got true", { best = true })
    train("checkpoint_every: expected checkpoint, a path, with it, got none", { checkpoint_every = 5 })
    train("keep: expected checkpoint, a path, with it, got none", { keep = 2 })
    train("keep: expected a whole number of at least 1, got 0", { checkpoint = folder .. "/c.h5", keep = 0 })
    train("replay: expected a path, got 1", { replay = 1 })
    train("on_step: expected a function, got true", { on_step = true })
    train("on_step_every: expected a whole number of at least 1, got 0", { on_step = print, on_step_every = 0 })
    train("on_step_every: expected on_step, a function, with it, got none", { on_step_every = 2 })
    train('unknown option "patiense"; nearest: patience', { patiense = 3 })
    train('unknown option "acumulate"; nearest: accumulate', { acumulate = 3 })
  end)

  it("does_not_write_two_things_to_one_path_or_replace_its_data", function()
    local path, data_file = folder .. "/same.h5", folder .. "/good.h5"
    train(("best: %s is the path of checkpoint too"):format(path), { checkpoint = path, best = path })
    train(("replay: %s is the path of best too"):format(path), { replay = path, best = path })
    train(("record: %s is the path of checkpoint too"):format(path), { checkpoint = path, record = path })
    for _, name in ipairs { "best", "replay", "checkpoint", "record" } do
      train(("%s: %s would replace the file of data"):format(name, data_file), { [name] = data_file })
    end
    train("best: /nowhere/b.h5: cannot be written", { best = "/nowhere/b.h5" })
    assert.is_false(helper.exists(path))
  end)
end)

describe("a wrong list of devices", function()
  it("is_refused_with_the_option_and_the_value", function()
    local wanted = 'expected an array of devices, such as { "vulkan:0", "cpu" }, or "all", got '
    train('devices: expected either device or devices, got device = "cpu" and devices = a table',
      { devices = { "cpu" } })
    train('devices: expected either device or devices, got device = "cpu" and devices = "all"', { devices = "all" })
    train("devices: " .. wanted .. "2", { devices = 2 })
    train("devices: " .. wanted .. '"cpu"', { devices = "cpu" })
    train("devices: expected an array of devices, at least 1 of them, got 0", { devices = {} })
    train("devices[2]: expected a device, got 0", { devices = { "cpu", 0 } })
    train('devices: expected an array of devices, got a table with "cpu"', { devices = { cpu = 4 } })
    train('device: expected one device, got "all"; devices = "all" stands for all of them', { device = "all" })
    evaluate("devices: expected an array of devices, at least 1 of them, got 0", { devices = {} })
    predict("devices: expected either device or devices", { devices = { "cpu" } })
  end)

  it("is_refused_for_its_shards", function()
    train("shards: expected a whole number of at least 1, got 0", { shards = 0 })
    train("shards: expected a whole number of at most 256, got 512", { shards = 512, batch = 1024 })
    train("shards: expected a power of two, got 6", { shards = 6 })
    train("shards: expected at most 4, the rows of a batch, got 8", { shards = 8, batch = 4 })
    train('balance: expected one of speed, even, got "fair"', { balance = "fair" })
    train('reduce: expected one of exact, fast, got "slow"', { reduce = "slow" })
    evaluate('unknown option "shards"', { shards = 2 })
  end)

  it("is_refused_where_one_of_them_is_not_there", function()
    helper.refused('device "vulkan:77": there is none', lf.train,
      { model = student, data = data.train, devices = { "cpu", "vulkan:77" } })
  end)
end)

describe("a wrong optimizer", function()
  it("is_refused_with_the_option_and_the_value", function()
    local refused = helper.refused
    refused("lf.adam: clip_value: expected either clip_norm or clip_value, got both, 1 and 0.5", lf.adam,
      { clip_norm = 1, clip_value = 0.5 })
    refused("lf.sgd: clip_norm: expected a number above 0, got 0", lf.sgd, { clip_norm = 0 })
    refused("lf.lamb: clip_value: expected a number above 0, got -1", lf.lamb, { clip_value = -1 })
    refused('lf.adamw: decay_bias: expected true or false, got "no"', lf.adamw, { decay_bias = "no" })
    refused('lf.rmsprop: unknown option "centered"', lf.rmsprop, { centered = true })
    refused("lf.rmsprop: alpha: expected a number of at least 0 and below 1, got 1", lf.rmsprop, { alpha = 1 })
    refused('lf.rmsprop: unknown option "beta2"', lf.rmsprop, { beta2 = 0.9 })
    refused('lf.lion: unknown option "eps"', lf.lion, { eps = 1e-8 })
    refused("lf.lion: beta1: expected a number of at least 0 and below 1, got 1.5", lf.lion, { beta1 = 1.5 })
    refused("lf.lamb: eps: expected a number above 0, got 0", lf.lamb, { eps = 0 })
    refused("lf.sgd: nesterov: expected a momentum above 0 with it, got 0", lf.sgd, { nesterov = true })
    refused('lf.adam: schedule "multistep": milestones: expected an array of whole numbers, got nothing', lf.adam,
      { schedule = { "multistep" } })
    refused("milestones[2]: expected a whole number of at least 0, got 1.5", lf.adam,
      { schedule = { "multistep", milestones = { 1, 1.5 } } })
    local many = {}
    for i = 1, 17 do many[i] = i end
    refused("milestones: expected an array of whole numbers, at most 16 of them, got 17", lf.adam,
      { schedule = { "multistep", milestones = many } })
  end)
end)

describe("a wrong layer", function()
  it("is_refused_with_the_option_and_the_value", function()
    local refused = helper.refused
    refused('lf.linear: init_scale: expected a number with init "constant", got nothing', lf.linear, 3, 4,
      { init = "constant" })
    refused('lf.linear: init_scale: expected init "normal" or "constant" with it, got "uniform"', lf.linear, 3, 4,
      { init_scale = 1 })
    refused('lf.linear: init_scale: expected init "normal" or "constant" with it, got "he_normal"', lf.linear, 3, 4,
      { init = "he_normal", init_scale = 1 })
    refused("lf.linear: init_scale: expected a number of at least 0, got -1", lf.linear, 3, 4,
      { init = "normal", init_scale = -1 })
    refused('lf.mlp: init_scale: expected a number with init "constant"', lf.mlp, { 3, 4, init = "constant" })
    refused('lf.residual: init_scale: expected init "normal" or "constant"', lf.residual,
      { lf.linear(3, 4), init_scale = 1 })
  end)
end)

describe("a wrong distillation", function()
  local hint = { student = "relu_1", teacher = "relu_1" }

  it("is_refused_with_the_option_and_the_value", function()
    distill("teacher: expected either teacher, a model, or teachers, an array of them; got neither", {})
    distill("teacher: expected either teacher, a model, or teachers, an array of them; got both",
      { teacher = teacher, teachers = { teacher } })
    distill("teachers: expected an array of models, at least 1 of them, got 0", { teachers = {} })
    distill("teachers[2]: expected a model, got 3", { teachers = { teacher, 3 } })
    distill("temperature: expected a number above 0, got 0", { teacher = teacher, temperature = 0 })
    distill("alpha: expected a number of at least 0 and at most 1, got 1.5", { teacher = teacher, alpha = 1.5 })
    distill('unknown option "model"', { teacher = teacher, model = teacher })
    distill("cache: expected true, false or a path, got 3", { teacher = teacher, cache = 3 })
    distill(("cache: %s would replace the file of data"):format(folder .. "/good.h5"),
      { teacher = teacher, cache = folder .. "/good.h5" })
    for _, loss in ipairs { "mse", "mae", "huber", "binary_cross_entropy" } do
      distill(('temperature: expected loss "cross_entropy" with it, got "%s"'):format(loss),
        { teacher = teacher, loss = loss, temperature = 4, data = values.train })
    end
  end)

  it("is_refused_for_its_hints", function()
    local function hints(part, given) distill(part, { teacher = teacher, hints = given }) end
    hints("hints: expected an array of tables, at least 1 of them, got 0", {})
    hints('hints: expected an array of tables, got a table with "student"', hint)
    hints("hints[1]: expected a table of student, teacher and weight, got 3", { 3 })
    hints("hints[1]: teacher: expected the name of a layer, got nothing", { { student = "relu_1" } })
    hints('hints[1]: unknown option "wieght"; nearest: weight',
      { { student = "relu_1", teacher = "relu_1", wieght = 1 } })
    hints("hints[1]: weight: expected a number above 0, got 0",
      { { student = "relu_1", teacher = "relu_1", weight = 0 } })
    hints('hints[2]: student: the student has no layer "relu_2"; nearest: relu_1',
      { hint, { student = "relu_2", teacher = "relu_1" } })
    hints('hints[1]: teacher: the teacher has no layer "rely_1"; nearest: relu_1',
      { { student = "relu_1", teacher = "rely_1" } })
    distill("hints: expected exactly one teacher with them, got 2",
      { teachers = { teacher, teacher }, hints = { hint } })
    for shown, cache in pairs { ["true"] = true, ['"c.h5"'] = "c.h5" } do
      distill("cache: expected false or nothing with hints, whose teacher runs at every step; got " .. shown,
        { teacher = teacher, hints = { hint }, cache = cache })
    end
  end)
end)

describe("a wrong evaluation or prediction", function()
  it("is_refused_with_the_option_and_the_value", function()
    evaluate("top_k: expected a whole number of at most 3, the model's outputs, got 4", { top_k = 4 })
    evaluate("top_k: expected a whole number of at least 1, got 0", { top_k = 0 })
    evaluate('top_k: expected loss "cross_entropy" with it, got "mse"', { top_k = 1, loss = "mse" })
    evaluate('unknown option "name"', { name = "x" })
    predict('as: expected one of logits, probabilities, sigmoid, classes, values, got "labels"', { as = "labels" })
    local single = lf.mlp { 4, 1, seed = 1 }
    for _, as in ipairs { "classes", "probabilities" } do
      predict(('as: expected a model of at least 2 outputs with "%s", got 1; as = "sigmoid"'):format(as),
        { as = as, model = single })
    end
    predict("output: expected a path, got true", { output = true })
    predict(("output: %s would replace the file of data"):format(folder .. "/good.h5"),
      { output = folder .. "/good.h5" })
    predict("output: /nowhere/p.h5: cannot be written", { output = "/nowhere/p.h5" })
    predict("expected either data, a part of a data set, or x, an array of rows; got both", { x = { { 1, 2, 3, 4 } } })
    helper.refused('model:predict: unknown option "x"', teacher.predict, teacher, data.test, { x = 1 })
  end)
end)
