-- Distillation: what the teachers say, computed once, kept in a file or at every step; hints; losses of values.
local uv = require "luv"
local lf = require "lavaflow"
local core = require "lavaflow.core"
local helper = require "helper"

if not helper.device_present then
  pending("skipped: this machine has no device " .. helper.device)
  return
end

local folder, data, teacher, other
setup(function()
  folder = helper.folder()
  helper.fixtures(folder)
  data = lf.dataset(folder .. "/good.h5")
  teacher, other = lf.mlp { 4, 16, 3, seed = 1 }, lf.mlp { 4, 12, 3, seed = 2 }
  for _, model in ipairs { teacher, other } do
    lf.train { model = model, data = data.train, epochs = 20, batch = 8, device = helper.device }
  end
end)
teardown(function()
  data:close()
  helper.remove(folder)
end)

local near, refused = helper.near, helper.refused

local function distill(given)
  local t = { student = lf.mlp { 4, 6, 3, seed = 3 }, data = data.train, validation = data.test, device = helper.device,
    epochs = 3, batch = 8 }
  for name, value in pairs(given) do t[name] = value end
  return lf.distill(t), t.student
end

describe("distillation", function()
  it("teaches_a_student_and_records_the_teacher", function()
    local path = folder .. "/distilled.h5"
    local one = distill { teacher = teacher, record = path }
    assert.equal(one.digest, distill({ teachers = { teacher } }).digest)
    assert.not_equal(one.digest, distill({ teacher = teacher, alpha = 0.1 }).digest)
    local metrics = core.h5_read(path, "/entry/metrics", 10)
    assert.equal(teacher:digest(), metrics.train["@teacher_1"])
    helper.remove(path)
  end)

  it("is_refused_where_models_do_not_fit", function()
    refused("teacher 1 has 2 outputs, but the student has 3", distill, { teacher = lf.mlp { 4, 8, 2, seed = 1 } })
    refused("teacher 1 has no weights yet", distill, { teacher = lf.mlp { 4, 3 } })
  end)

  it("gives_the_same_losses_from_memory_a_file_and_every_step", function()
    local path = folder .. "/cache.h5"
    local given = { teachers = { teacher, other }, epochs = 4 }
    local memory = distill(given)
    given.cache = true
    assert.equal(memory.digest, distill(given).digest)
    for _, cache in ipairs { path, false } do
      given.cache = cache
      local history = distill(given)
      for _, name in ipairs { "loss", "val_loss" } do near(memory[name], history[name], 1e-5, name) end
    end
    helper.remove(path)
  end)

  it("reads_a_cache_of_the_same_teachers_and_data_and_replaces_another", function()
    local path = folder .. "/cache.h5"
    local first = distill { teacher = teacher, cache = path }
    local written, content = uv.fs_stat(path), core.h5_digest(path, "/")
    local again = distill { teacher = teacher, cache = path, alpha = 0.7, seed = 5 }
    assert.same({ written.ino, written.mtime }, { uv.fs_stat(path).ino, uv.fs_stat(path).mtime })
    assert.equal(distill({ teacher = teacher, seed = 5 }).digest, again.digest)
    assert.equal(distill({ teacher = teacher }).digest, first.digest)
    for name, changed in pairs { teacher = { teacher = other }, temperature = { teacher = other, temperature = 2 },
      data = { teacher = other, temperature = 2, data = data.test } } do
      local memory = distill(changed)
      changed.cache = path
      assert.equal(memory.digest, distill(changed).digest, name)
      assert.not_equal(content, core.h5_digest(path, "/"), name)
      assert.equal(memory.digest, distill(changed).digest, name)
    end
    helper.remove(path)
  end)

  it("replaces_no_file_that_is_no_cache", function()
    local path = helper.write(folder .. "/notes.txt", "mine")
    refused("notes.txt: is no cache of a teacher's outputs, and is not replaced by one", distill,
      { teacher = teacher, cache = path })
    assert.equal("mine", helper.read(path))
    helper.remove(path)
  end)

  it("keeps_the_teachers_open_while_it_runs", function()
    local own = lf.mlp { 4, 8, 3, seed = 1 }
    for _, cache in ipairs { true, false } do
      local said
      distill { teacher = own, cache = cache, on_epoch = function() said = select(2, pcall(own.close, own)) end }
      helper.has(tostring(said), "the model is in use by a training")
    end
    own:close()
  end)
end)

describe("hints", function()
  local hints = { { student = "relu_1", teacher = "relu_1", weight = 0.5 } }

  it("are_learned_and_leave_a_student_as_it_was_defined", function()
    local path = folder .. "/hints.h5"
    local history, student = distill { teacher = teacher, hints = hints, epochs = 30, record = path,
      optimizer = lf.adam { lr = 1e-2 } }
    assert.is_true(history.loss[30] < 0.7 * history.loss[1])
    assert.equal(lf.mlp({ 4, 6, 3 }):definition(), student:definition())
    assert.equal(student:digest(), history.digest)
    assert.not_equal(distill({ teacher = teacher, epochs = 30, optimizer = lf.adam { lr = 1e-2 } }).digest,
      history.digest)
    helper.has(core.h5_read(path, "/entry/metrics", 10).train["@hint_1"], "relu_1 matches relu_1")
    helper.remove(path)
  end)

  it("add_their_weight_to_the_loss", function()
    local function first_loss(weight)
      return distill({ teacher = teacher, epochs = 1, batch = 48, optimizer = lf.sgd { lr = 0 },
        hints = { { student = "relu_1", teacher = "relu_1", weight = weight } } }).loss[1]
    end
    local plain = distill({ teacher = teacher, epochs = 1, batch = 48, optimizer = lf.sgd { lr = 0 } }).loss[1]
    local one = first_loss(1) - plain
    assert.is_true(one > 0)
    near(3 * one, first_loss(3) - plain, 1e-5)
    assert.equal(first_loss(1), distill({ teacher = teacher, epochs = 1, batch = 48, optimizer = lf.sgd { lr = 0 },
      hints = { { student = "relu_1", teacher = "relu_1" } } }).loss[1])
  end)

  it("resume_to_equal_bits", function()
    local path = folder .. "/c.h5"
    local given = { teacher = teacher, hints = hints, epochs = 4 }
    local whole = distill(given)
    given.checkpoint, given.max_steps = path, 9
    distill(given)
    given.checkpoint, given.max_steps, given.resume = nil, nil, path
    assert.equal(whole.digest, distill(given).digest)
    helper.remove(path)
  end)
end)

describe("distillation of values", function()
  local values
  setup(function() values = lf.dataset(folder .. "/values.h5") end)
  teardown(function() values:close() end)

  local function of_values(given)
    local t = { student = lf.mlp { 4, 6, 2, seed = 3 }, data = values.train, validation = false, loss = "mse" }
    for name, value in pairs(given) do t[name] = value end
    t.validation = t.validation or values.test
    return distill(t)
  end

  it("weighs_the_loss_and_the_distance_to_the_teachers", function()
    local teachers = { lf.mlp { 4, 8, 2, seed = 1 }, lf.mlp { 4, 8, 2, seed = 2 } }
    local student, alpha = lf.mlp { 4, 6, 2, seed = 3 }, 0.3
    local outputs = {}
    for i, model in ipairs { student, teachers[1], teachers[2] } do
      outputs[i] = lf.predict { model = model, data = values.train, device = helper.device }
    end
    local distance, count = 0, 0
    for row = 1, values.train.rows do
      for j = 1, 2 do
        local mean = (outputs[2][row][j] + outputs[3][row][j]) / 2
        distance, count = distance + (outputs[1][row][j] - mean) ^ 2, count + 1
      end
    end
    local plain = lf.evaluate { model = student, data = values.train, loss = "mse", device = helper.device }.loss
    for _, cache in ipairs { true, false } do
      local history = of_values { student = student, teachers = teachers, alpha = alpha, cache = cache, epochs = 1,
        optimizer = lf.sgd { lr = 0 } }
      near((1 - alpha) * plain + alpha * distance / count, history.loss[1], 1e-5, tostring(cache))
    end
  end)

  it("teaches_with_every_loss_of_values", function()
    local sides = lf.dataset(folder .. "/sides.h5")
    for _, loss in ipairs { "mse", "mae", "huber", "binary_cross_entropy" } do
      local from = loss == "binary_cross_entropy" and sides or values
      local history = of_values { teacher = lf.mlp { 4, 8, 2, seed = 1 }, loss = loss, data = from.train,
        validation = from.test, alpha = 1, epochs = 40, optimizer = lf.adam { lr = 2e-2 } }
      assert.is_true(history.loss[40] < 0.2 * history.loss[1], loss)
    end
    sides:close()
  end)
end)
