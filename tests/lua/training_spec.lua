local lf = require "lavaflow"
local core = require "lavaflow.core"
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

local function train(given)
  local t = { model = lf.mlp { 4, 8, 3 }, data = data.train, device = "cpu", epochs = 2 }
  for name, value in pairs(given or {}) do t[name] = value end
  return lf.train(t)
end

describe("training", function()
  it("learns_separated_clusters", function()
    local history = train { validation = data.test, epochs = 60, batch = 8, optimizer = lf.adam { lr = 1e-2 } }
    assert.is_true(history.final.val_accuracy >= 0.9, history.final.val_accuracy)
    assert.equal(60, #history.loss)
    assert.equal(60, #history.val_accuracy)
    assert.is_true(history.loss[60] < history.loss[1])
  end)

  it("what_a_training_uses_cannot_be_closed", function()
    local model, own = lf.mlp { 4, 8, 3 }, lf.dataset(folder .. "/good.h5")
    local said = {}
    local history = train { model = model, data = own.train, validation = own.test, on_epoch = function()
      for _, handle in ipairs { model, own } do
        local ok, message = pcall(handle.close, handle)
        assert.is_false(ok)
        said[#said + 1] = message
      end
    end }
    assert.equal(2, #history.loss)
    helper.has(said[1], "the model is in use by a training")
    helper.has(said[2], "the data set is in use by a training")
    own:close()
    model:close()
  end)

  it("writes_no_file_over_its_data", function()
    for _, name in ipairs { "record", "checkpoint" } do
      local ok, message = pcall(train, { [name] = folder .. "/./good.h5" })
      assert.is_false(ok)
      helper.has(message, name .. ": " .. folder .. "/./good.h5 would replace the file of data")
    end
  end)

  it("goes_on_from_its_checkpoint_or_starts_when_there_is_none", function()
    local path = folder .. "/checkpoint.h5"
    local function go(epochs)
      return train { checkpoint = path, resume = path, epochs = epochs, validation = data.test }
    end
    local whole = train { epochs = 4, validation = data.test }
    assert.equal(2, go(2).epochs)
    local rest = go(4)
    assert.equal(whole.digest, rest.digest)
    assert.equal(whole.final.loss, rest.final.loss)
    local finished = go(4) -- nothing is left to do: the validation alone
    assert.equal(whole.digest, finished.digest)
    assert.equal(whole.final.val_loss, finished.final.val_loss)
    assert.is_nil(finished.final.loss)
    local ok, message = pcall(go, 2)
    assert.is_false(ok)
    helper.has(message, "past the")
    ok, message = pcall(train, { resume = path, data = data.test, epochs = 4 })
    assert.is_false(ok)
    helper.has(message, "belongs to another training")
    ok, message = pcall(train, { resume = folder .. "/none.h5" })
    assert.is_false(ok)
    helper.has(message, "none.h5: cannot open")
    helper.remove(path)
  end)

  it("rows_and_weights_are_read_without_metamethods", function()
    local model = lf.mlp { 4, 8, 3, seed = 1 }
    local function close() model:close() end
    local rows = setmetatable({}, { __len = function() return (1 << 59) + 1 end, __index = close })
    assert.is_false((pcall(model.predict, model, rows)))
    assert.is_false((pcall(model.predict, model, { setmetatable({}, { __index = close }) })))
    local before = model:digest()
    assert.is_false((pcall(model.set_weights, model, "linear_1/bias", { 1, 2, 3, 4, 5, 6, 7, "x" })))
    assert.equal(before, model:digest())
  end)

  it("two_runs_give_equal_bits_and_another_seed_others", function()
    assert.equal(train({ seed = 3 }).digest, train({ seed = 3 }).digest)
    assert.not_equal(train({ seed = 3 }).digest, train({ seed = 4 }).digest)
  end)

  it("defaults_are_batch_64_ten_epochs_adam_and_shuffling", function()
    local plain = train { epochs = 10, optimizer = lf.adam { lr = 1e-3 }, batch = 64, shuffle = true, seed = 0 }
    local model = lf.mlp { 4, 8, 3 }
    local history = lf.train { model = model, data = data.train, device = "cpu" }
    assert.equal(plain.digest, history.digest)
    assert.equal(model:digest(), history.digest)
  end)

  it("optimizers_have_pytorch_s_defaults", function()
    local function fields(optimizer) return setmetatable(optimizer, nil) end
    local function expect(kind, expected)
      expected.kind = kind
      assert.same(expected, fields(lf[kind] {}))
    end
    assert.same(fields(lf.sgd {}), fields(lf.sgd()))
    expect("sgd", { lr = 1e-3, momentum = 0.0, nesterov = false, weight_decay = 0.0, decay_bias = true })
    local adam = { lr = 1e-3, beta1 = 0.9, beta2 = 0.999, eps = 1e-8, weight_decay = 0.0, decay_bias = true }
    expect("adam", adam)
    adam.weight_decay, adam.decay_bias = 1e-2, false
    expect("adamw", adam)
    expect("rmsprop", { lr = 1e-2, beta2 = 0.99, eps = 1e-8, momentum = 0.0, weight_decay = 0.0, decay_bias = true })
    expect("lion", { lr = 1e-4, beta1 = 0.9, beta2 = 0.99, weight_decay = 0.0, decay_bias = false })
    expect("lamb", { lr = 1e-3, beta1 = 0.9, beta2 = 0.999, eps = 1e-6, weight_decay = 0.0, decay_bias = false })
  end)

  it("every_optimizer_changes_the_weights_its_own_way", function()
    local seen = {}
    for _, optimizer in ipairs { lf.sgd { lr = 0.1 }, lf.sgd { lr = 0.1, momentum = 0.9 },
      lf.sgd { lr = 0.1, momentum = 0.9, nesterov = true }, lf.adam {}, lf.adamw { weight_decay = 0.1 },
      lf.rmsprop {}, lf.rmsprop { momentum = 0.9 }, lf.lion {}, lf.lamb {}, lf.sgd { lr = 0.1, clip_norm = 0.1 },
      lf.sgd { lr = 0.1, clip_value = 0.01 }, lf.sgd { lr = 0.1, weight_decay = 0.1 },
      lf.sgd { lr = 0.1, weight_decay = 0.1, decay_bias = false } } do
      local digest = train({ optimizer = optimizer }).digest
      assert.is_nil(seen[digest])
      seen[digest] = true
    end
  end)

  it("mse_learns_values_and_has_no_accuracy", function()
    local values = lf.dataset(folder .. "/values.h5")
    local history = train { model = lf.mlp { 4, 16, 2 }, data = values.train, validation = values.test, loss = "mse",
      epochs = 80, batch = 8, optimizer = lf.adam { lr = 1e-2 } }
    assert.is_nil(history.accuracy)
    assert.is_nil(history.final.val_accuracy)
    assert.is_true(history.final.val_loss < 0.5 * history.val_loss[1])
  end)

  it("on_epoch_sees_each_epoch_and_false_stops", function()
    local seen = {}
    local history = train { epochs = 10, on_epoch = function(epoch, logs)
      seen[epoch] = logs.loss
      return epoch < 3
    end }
    assert.same(history.loss, seen)
    assert.equal(3, #seen)
    assert.equal("on_epoch", history.stopped)
  end)

  it("an_error_in_on_epoch_is_the_training's", function()
    helper.has(helper.message(train, { on_epoch = function() error "mine" end }), "mine")
  end)

  it("max_steps_ends_the_training", function()
    local history = train { epochs = 10, batch = 8, max_steps = 9 }
    assert.equal(9, history.steps)
    assert.equal("max_steps", history.stopped)
  end)

  it("a_stopped_and_resumed_training_gives_the_bits_of_one_that_was_not", function()
    local checkpoint = folder .. "/checkpoint.h5"
    train { epochs = 4, batch = 8, max_steps = 9, checkpoint = checkpoint }
    local whole, resumed = train { epochs = 4, batch = 8 }, train { epochs = 4, batch = 8, resume = checkpoint }
    assert.equal(whole.digest, resumed.digest)
  end)

  it("evaluate_gives_what_validation_gave", function()
    local model = lf.mlp { 4, 8, 3 }
    local history = train { model = model, validation = data.test }
    local scores = lf.evaluate { model = model, data = data.test, device = "cpu" }
    assert.equal(history.final.val_accuracy, scores.accuracy)
    assert.is_true(math.abs(history.final.val_loss - scores.loss) < 1e-6)
    assert.equal(12, scores.rows)
  end)

  it("predict_on_a_part_is_predict_on_its_rows", function()
    local model = lf.mlp { 4, 8, 3, seed = 1 }
    local rows = data.test:read(0, 12)
    local from_rows = lf.predict { model = model, x = rows, device = "cpu" }
    assert.same(from_rows, lf.predict { model = model, data = data.test, device = "cpu" })
    assert.same(from_rows, model:predict(data.test, { device = "cpu" }))
  end)

  it("record_writes_a_run_file_without_the_runner", function()
    local run_file = folder .. "/run.h5"
    local history = train { record = run_file, validation = data.test, name = "first" }
    local entry = core.h5_read(run_file, "/", 1000).entry
    assert.equal("completed", entry.status)
    assert.equal(0, entry.exit_code)
    assert.equal(2, entry.parameters.epochs)
    assert.equal("adam", entry.parameters.optimizer)
    assert.equal(folder .. "/good.h5:/train/x", entry.inputs["1"])
    assert.equal("cpu", entry.system.device_0.id)
    assert.equal(history.final.val_loss, entry.metrics.first.val_loss.value[2])
    assert.equal(history.digest, entry.digests.first.sha256[2])
    assert.equal("first", entry.step_1.name)
    helper.has(table.concat(entry.log.text, "\n"), "step first: completed")
  end)

  it("record_holds_the_schedule", function()
    local run_file = folder .. "/schedule.h5"
    local function parameters(schedule)
      train { record = run_file, optimizer = lf.adam { lr = 0.02, schedule = schedule } }
      return core.h5_read(run_file, "/entry/parameters", 100)
    end
    local values = parameters { "multistep", milestones = { 1, 3 }, gamma = 0.5, warmup = 1, per = "epoch" }
    assert.equal("adam", values.optimizer)
    assert.equal(0.02, values.lr)
    assert.equal("multistep", values.schedule)
    assert.equal("1 3", values.schedule_milestones)
    assert.equal(0.5, values.schedule_gamma)
    assert.equal(1, values.schedule_warmup)
    assert.equal(1, values.schedule_per_epoch)
    values = parameters "cosine"
    assert.equal("cosine", values.schedule)
    assert.equal(0, values.schedule_final)
    assert.is_nil(parameters(nil).schedule)
  end)

  it("record_holds_numbers_texts_and_arrays_of_numbers", function()
    local run_file = folder .. "/options.h5"
    train { record = run_file, class_weights = { 1, 0.5, 2 }, ema = 0.9, accumulate = 2, monitor = "loss",
      optimizer = lf.rmsprop { alpha = 0.9, clip_norm = 1 }, on_step = function() end }
    local values = core.h5_read(run_file, "/entry/parameters", 100)
    assert.same({ "1 0.5 2", 0.9, 2, "loss", "cross_entropy", "rmsprop", 0.9, 1 },
      { values.class_weights, values.ema, values.accumulate, values.monitor, values.loss, values.optimizer,
        values.beta2, values.clip_norm })
  end)

  it("record_of_a_failure_says_so", function()
    local run_file = folder .. "/failed.h5"
    helper.message(train, { record = run_file, on_epoch = function() error "mine" end })
    local entry = core.h5_read(run_file, "/", 1000).entry
    assert.equal("failed", entry.status)
    assert.equal(1, entry.exit_code)
    helper.has(table.concat(entry.log.text, "\n"), "mine")
  end)
end)

describe("the plugin's own functions", function()
  it("have_no_defaults_of_their_own", function()
    local model = lf.mlp { 4, 8, 3, seed = 1 }
    local function without(fn, given, names)
      for _, name in ipairs(names) do
        local value = given[name]
        given[name] = nil
        helper.has(helper.message(fn, given), name .. ": expected")
        given[name] = value
      end
      fn(given)
    end
    local given = { model = model, data = data.train, loss = "cross_entropy", optimizer = lf.adam(), batch = 8,
      accumulate = 1, epochs = 1, seed = 1, shuffle = true, devices = { "cpu" }, balance = "even",
      name = "train" }
    local names = { "model", "data", "loss", "optimizer", "batch", "accumulate", "epochs", "seed", "shuffle", "devices",
      "balance" }
    without(core.explain, given, names)
    names[#names + 1] = "name"
    without(core.train, given, names)
    local teacher = lf.mlp { 4, 8, 3, seed = 2 }
    given.teachers, given.temperature, given.alpha, given.live = { teacher }, 4.0, 0.7, false
    without(core.train, given, { "alpha", "live" })
    given = { model = model, data = data.test, loss = "cross_entropy", batch = 8, device = "cpu" }
    without(core.evaluate, given, { "model", "data", "loss", "batch", "device" })
    given.as = "logits"
    without(core.predict, given, { "model", "batch", "device", "as" })
  end)
end)

describe("a wrong training", function()
  local function refused(part, given)
    helper.has(helper.message(train, given), part)
  end

  it("is_refused_with_the_option_and_the_value", function()
    refused("lf.train: batch: expected a whole number of at least 1, got 0", { batch = 0 })
    refused("lf.train: epochs: expected a whole number of at least 1, got 0", { epochs = 0 })
    refused('lf.train: unknown option "bacth"; nearest: batch', { bacth = 1 })
    refused("lf.train: optimizer: expected an optimizer, such as lf.adam { lr = 1e-3 }", { optimizer = "adam" })
    refused("lf.train: data: expected a part of a data set, such as data.train, got a data set", { data = data })
    helper.has(helper.message(lf.train, { model = lf.mlp { 4, 3 }, data = data.valid }), "data.train, got nothing")
    helper.has(helper.message(lf.adam, { lr = -1 }), "lf.adam: lr: expected a number of at least 0, got -1")
    helper.has(helper.message(lf.adam, { learning_rate = 1 }), 'lf.adam: unknown option "learning_rate"')
    helper.has(helper.message(lf.sgd, { nesterov = true }), "lf.sgd: nesterov: expected a momentum above 0")
  end)

  it("names_the_devices_there_are", function()
    refused('device "vulkan:99": there is none; this machine has', { device = "vulkan:99" })
    refused('device "abacus"', { device = "abacus" })
  end)

  it("names_model_and_data_that_do_not_fit", function()
    refused("the model expects 5 inputs, but a row of " .. folder .. "/good.h5:/train/x has 4 features",
      { model = lf.mlp { 5, 3 } })
    refused("good.h5:/train/y has 3 classes, but the model has 2 outputs", { model = lf.mlp { 4, 2 } })
    refused('good.h5:/train/y has 1 value a row, but the model has 3 outputs, all of which loss "mse" needs',
      { loss = "mse" })
  end)

  it("finds_out_before_it_starts_that_its_files_cannot_be_written", function()
    local epochs = 0
    local function count() epochs = epochs + 1 end
    local nowhere = "/nowhere/x.h5"
    refused("lf.train: record: /nowhere/x.h5: cannot be written", { record = nowhere, on_epoch = count })
    refused("lf.train: checkpoint: /nowhere/x.h5: cannot be written", { checkpoint = nowhere, on_epoch = count })
    refused("nope.h5: cannot open: No such file", { resume = "nope.h5", on_epoch = count })
    assert.equal(0, epochs)
  end)

  it("has_no_steps_or_parameters_outside_a_workflow", function()
    helper.has(helper.message(lf.step, "a"), "lf.step: expected a workflow that is being loaded")
    helper.has(helper.message(lf.params, {}), "lf.params: expected a workflow that is being loaded")
  end)
end)
